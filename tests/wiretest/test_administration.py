"""What is read of a mesh and asked of its nodes, over two real nodes on loopback."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId, PredictorName
from mesh.core.records import CopyState, NodeRecord, NodeState
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Delete, Put
from mesh.wire import records
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.builders import RUNTIME, copy
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.ports import free_ports
from tests.support.world import World, begin, eventually, world


@asynccontextmanager
async def pair(
    registry: MemoryRegistry | None = None, *runtimes: FakeRuntime
) -> AsyncIterator[tuple[World, World]]:
    """Two nodes of one mesh, n1 and n2."""
    registry = registry or MemoryRegistry()
    one, other = (f"127.0.0.1:{port}" for port in free_ports(2))
    first, second = runtimes or (FakeRuntime(), FakeRuntime())
    async with (
        node(registry, "n1", one, first) as left,
        node(registry, "n2", other, second) as right,
    ):
        await eventually(lambda: {"n1", "n2"} <= set(left.running.node.view.nodes))
        await eventually(lambda: {"n1", "n2"} <= set(right.running.node.view.nodes))
        yield left, right


def node(registry: MemoryRegistry, name: str, address: str, runtime: FakeRuntime):
    identity = Identity(NodeId(name), RUNTIME, address=address)
    return world(runtime, identity=identity, registry=registry, management=address, hand_over_s=1.0)


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def reading(w: World, kind: int, name: str = "") -> list[dict]:
    return [json.loads(event.json) async for event in w.manage.Read(request(kind, name))]


def request(kind: int, name: str = "", **fields) -> pb.ReadRequest:
    return pb.ReadRequest(kind=kind, name=name, **fields)


def names(resources: list[dict]) -> list[str]:
    return [resource["metadata"]["name"] for resource in resources]


# reading


async def test_all_of_a_kind_are_read_in_the_order_of_their_names():
    async with world() as w:
        for name in ("b", "a", "c"):
            await w.apply(name)
            await w.reaches(name, "Loaded  UpToDate")
        found = await reading(w, pb.PREDICTOR)
        assert names(found) == ["a", "b", "c"]
        assert found[0] == json.loads((await w.manage.Get(pb.GetRequest(name="a"))).json)
        models = await reading(w, pb.MODEL)
        assert names(models) == sorted(w.running.node.view.models)
        assert [model["status"]["predictors"] for model in models] == [["a"], ["b"], ["c"]]
        assert models[0]["status"] == {
            "state": "Loaded",
            "predictors": ["a"],
            "copies": 1,
            "failedCopies": 0,
            "autoDelete": True,
        }
        assert models[0]["spec"]["path"] == "a"
        copies = await reading(w, pb.COPY)
        assert names(copies) == [f"{name}/n1" for name in names(models)]
        assert copies[0]["status"]["state"] == "Loaded"
        (node,) = await reading(w, pb.NODE)
        assert (node["kind"], node["metadata"]["name"]) == ("Node", "n1")
        assert node["status"]["copies"] == 3
        assert node["status"]["capacityBytes"] == 10 * MB


async def test_one_is_read_by_its_name_and_a_copy_by_that_of_its_model_or_node_too():
    async with world() as w:
        for name in ("a", "b"):
            await w.apply(name)
            await w.reaches(name, "Loaded  UpToDate")
        model = w.running.node.view.predictors["a"].active
        assert names(await reading(w, pb.PREDICTOR, "b")) == ["b"]
        assert names(await reading(w, pb.MODEL, model)) == [model]
        assert names(await reading(w, pb.COPY, model)) == [f"{model}/n1"]
        assert names(await reading(w, pb.COPY, f"{model}/n1")) == [f"{model}/n1"]
        assert len(await reading(w, pb.COPY, "n1")) == 2


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (pb.PREDICTOR, "predictor 'x' not found"),
        (pb.MODEL, "model 'x' not found"),
        (pb.NODE, "node 'x' not found"),
        (pb.COPY, "copy 'x' not found"),
    ],
)
async def test_what_is_not_there_is_not_found_and_nothing_is_an_empty_list(kind, text):
    async with world() as w:
        stream = w.manage.Read(request(kind, "x"))
        assert await refused(stream.read()) == (grpc.StatusCode.NOT_FOUND, text)
        assert await reading(w, kind) == [] or kind == pb.NODE


async def test_followed_models_copies_and_nodes_tell_each_change_and_the_end():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        own = set(w.running.node.view.readers)
        models = w.manage.Read(request(pb.MODEL, follow=True))
        copies = w.manage.Read(request(pb.COPY, follow=True))
        nodes = w.manage.Read(request(pb.NODE, "n1", follow=True))
        assert json.loads((await nodes.read()).json)["status"]["copies"] == 0
        await w.apply("p")
        await until(models, lambda shown: shown["status"]["state"] == "Loading")
        await until(nodes, lambda shown: shown["status"]["copies"] == 1)
        runtime.gates["a"].set()
        await until(models, lambda shown: shown["status"]["state"] == "Loaded")
        await until(copies, lambda shown: shown["status"]["state"] == "Loaded")
        await w.manage.Delete(pb.DeleteRequest(name="p"))
        await until(models, lambda shown: shown is None)
        await until(copies, lambda shown: shown is None)
        for stream in (models, copies, nodes):
            stream.cancel()
        await eventually(lambda: w.running.node.view.readers == own)


async def test_followed_predictors_tell_what_their_models_do():
    async with world() as w:
        stream = w.manage.Read(request(pb.PREDICTOR, "p", follow=True))
        await w.apply("other", path="b")
        await w.apply("p")
        await until(stream, lambda shown: shown["status"]["activeModelState"] == "Loaded")
        await w.manage.Delete(pb.DeleteRequest(name="p"))
        await until(stream, lambda shown: shown is None)
        stream.cancel()


async def until(stream, condition) -> None:
    """Reads on until an event is so."""
    async with asyncio.timeout(5):
        while True:
            event = await stream.read()
            if condition(json.loads(event.json) if event.json else None):
                return


# draining


async def test_node_is_drained_through_another_one():
    async with pair() as (left, right):
        await left.manage.Drain(pb.DrainRequest(node="n2"))
        assert right.running.node.is_draining
        assert not left.running.node.is_draining
        await eventually(
            lambda: left.running.node.view.nodes[NodeId("n2")].state is NodeState.DRAINING
        )


async def test_node_drains_itself():
    async with world() as w:
        await w.manage.Drain(pb.DrainRequest(node="n1"))
        assert w.running.node.is_draining


async def test_drain_that_waits_is_answered_once_another_node_has_what_was_used():
    runtimes = [FakeRuntime(), FakeRuntime()]
    async with pair(None, *runtimes) as (left, right):
        await left.apply("p")
        await left.reaches("p", "Loaded  UpToDate")
        await left.ask("p")
        model = left.running.node.view.predictors[PredictorName("p")].active
        own, other = ("n1", "n2") if model in runtimes[0].loaded else ("n2", "n1")
        there = runtimes[0 if other == "n1" else 1]
        gate = there.gates["a"] = asyncio.Event()
        for asked in (left, right):  # the node itself as well
            drain = asked.manage.Drain(pb.DrainRequest(node=own, wait=True), timeout=0.2)
            assert (await refused(drain))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert there.loads == [model]
        waiting = [w.manage.Drain(pb.DrainRequest(node=own, wait=True)) for w in (left, right)]
        gate.set()
        for each in waiting:
            answer = await each
            assert (answer.is_handed_over, list(answer.kept)) == (True, [])
        assert model in there.loaded
        assert [w.running.node.is_draining for w in (left, right)] == [own == "n1", own == "n2"]


async def test_drain_that_waits_names_what_no_other_node_has_room_for():
    async with pair(None, FakeRuntime(), FakeRuntime(capacity_bytes=0)) as (left, right):
        for name in ("p", "q"):
            await left.apply(name)
            await left.reaches(name, "Loaded  UpToDate")
            await left.ask(name)
        answer = await right.manage.Drain(pb.DrainRequest(node="n1", wait=True))
        assert answer.is_handed_over
        models = left.running.node.view.models
        assert list(answer.kept) == sorted(models)


async def test_drain_of_a_node_that_there_is_not_or_that_is_silent_says_so():
    registry = MemoryRegistry()
    (port,) = free_ports(1)
    for name, address in (("silent", f"127.0.0.1:{port}"), ("mute", "")):
        record = NodeRecord(NodeId(name), NodeState.READY, address=address)
        await registry.commit([Put(records.node_key(record.id), records.encode(record))])
    async with pair(registry) as (left, right):
        drain = left.manage.Drain
        assert await refused(drain(pb.DrainRequest(node="n9"))) == (
            grpc.StatusCode.NOT_FOUND,
            "node 'n9' not found",
        )
        assert await refused(drain(pb.DrainRequest(node="silent"))) == (
            grpc.StatusCode.UNAVAILABLE,
            "node 'silent' does not answer",
        )
        assert await refused(drain(pb.DrainRequest(node="mute"))) == (
            grpc.StatusCode.UNAVAILABLE,
            "node 'mute' has no address",
        )
        # What was passed on is for the node itself, or for a past life of it.
        passed = pb.DrainRequest(node="n2", is_passed_on=True)
        assert (await refused(drain(passed)))[0] is grpc.StatusCode.NOT_FOUND
        assert not right.running.node.is_draining


async def test_drain_of_another_life_of_a_node_is_not_found():
    registry = MemoryRegistry()
    async with pair(registry) as (left, right):
        address = right.running.node.identity.address
        past = NodeRecord(NodeId("n2-before"), NodeState.READY, address=address)
        await registry.commit([Put(records.node_key(past.id), records.encode(past))])
        await eventually(lambda: past.id in left.running.node.view.nodes)
        code, _ = await refused(left.manage.Drain(pb.DrainRequest(node="n2-before")))
        assert code is grpc.StatusCode.NOT_FOUND
        assert not right.running.node.is_draining


# failures


@asynccontextmanager
async def failed() -> AsyncIterator[tuple[World, World, dict[str, str]]]:
    """A Predictor whose model failed on both nodes; its failures, to be mended."""
    failures = {"a": "no such object"}
    runtimes = [FakeRuntime(failures=failures) for _ in range(2)]
    async with pair(None, *runtimes) as (left, right):
        await left.apply("p")
        await refused(left.ask("p"))
        for w in (left, right):
            await eventually(lambda w=w: len(failed_copies(w)) == 2)
        yield left, right, failures


def failed_copies(w: World) -> list[str]:
    return [
        each.node for each in w.running.node.view.every_copy() if each.state is CopyState.FAILED
    ]


async def test_failure_is_forgotten_on_all_nodes_through_any_of_them():
    async with failed() as (left, right, failures):
        failures.clear()
        answer = await left.manage.ForgetFailure(pb.ForgetFailureRequest(predictor="p"))
        assert (list(answer.nodes), list(answer.unreachable)) == (["n1", "n2"], [])
        assert (await right.ask("p")).model_name
        again = await left.manage.ForgetFailure(pb.ForgetFailureRequest(predictor="p"))
        assert list(again.nodes) == []


async def test_failure_is_forgotten_on_one_node_alone():
    async with failed() as (left, _right, _failures):
        (model,) = left.running.node.view.models
        asked = pb.ForgetFailureRequest(model=model, node="n2")
        assert list((await left.manage.ForgetFailure(asked)).nodes) == ["n2"]


async def test_apply_again_forgets_everywhere():
    async with failed() as (left, right, failures):
        failures.clear()
        assert await left.apply("p") == "UNCHANGED"
        await eventually(lambda: not failed_copies(left) and not failed_copies(right))
        assert (await right.ask("p")).model_name


async def test_node_that_does_not_answer_is_named():
    registry = MemoryRegistry()
    async with world(registry=registry) as w:
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        (model,) = w.running.node.view.models
        gone = NodeRecord(NodeId("gone"), NodeState.READY, address="127.0.0.1:1")
        record = copy(model, CopyState.FAILED, "gone", since_s=1e12)
        await registry.commit(
            [
                Put(records.node_key(gone.id), records.encode(gone)),
                Put(records.copy_key(record.model, gone.id), records.encode(record)),
            ]
        )
        await eventually(lambda: len(list(w.running.node.view.every_copy())) == 2)
        answer = await w.manage.ForgetFailure(pb.ForgetFailureRequest(model=model))
        assert (list(answer.nodes), list(answer.unreachable)) == ([], ["gone"])


async def test_failure_of_what_is_not_there_is_not_found():
    async with world() as w:
        forget = w.manage.ForgetFailure
        for asked, text in (
            (pb.ForgetFailureRequest(predictor="x"), "predictor 'x' not found"),
            (pb.ForgetFailureRequest(model="x"), "model 'x' not found"),
            (pb.ForgetFailureRequest(), "model '' not found"),
        ):
            assert await refused(forget(asked)) == (grpc.StatusCode.NOT_FOUND, text)
        await w.apply("p")
        asked = pb.ForgetFailureRequest(predictor="p", node="x")
        assert await refused(forget(asked)) == (grpc.StatusCode.NOT_FOUND, "node 'x' not found")


async def test_changes_wait_while_the_store_is_being_filled_again():
    registry = MemoryRegistry()
    async with pair(registry) as (left, _):
        await left.apply("p")
        await left.reaches("p", "Loaded  UpToDate")
        await registry.commit([Delete(records.SEEDED)])

        async def delete() -> None:
            await left.manage.Delete(pb.DeleteRequest(name="p"))

        changes = [begin(delete()), begin(left.apply("q"))]
        done, _ = await asyncio.wait(changes, timeout=0.3)
        assert not done
        assert set(left.running.node.view.predictors) == {"p"}
        await registry.commit([Put(records.SEEDED, b"1")])
        await asyncio.wait(changes)
        await eventually(lambda: set(left.running.node.view.predictors) == {"q"})
