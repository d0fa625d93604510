"""RPCs of other services than KServe's: routed by name, and given the id as runtimes want it."""

import asyncio
import gc
from contextlib import asynccontextmanager

import grpc
import pytest

from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId
from mesh.registry.memory import MemoryRegistry
from mesh.wire.dataplane import Dataplane
from mesh.wire.field_path import read_string, replace_string
from tests.support.builders import RUNTIME
from tests.support.fake_runtime import FakeRuntime
from tests.support.ports import free_ports
from tests.support.world import DEADLINE_S, begin, eventually, world

PREDICT = "/tensorflow.serving.PredictionService/Predict"
META = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
NAMES = 40
LISTED = Dataplane({PREDICT: (1, 1)})
SERVING = {"methods": {PREDICT: (1, 1), "inference.GRPCInferenceService/ModelInfer": (1,)}}


async def call(w, method: str, message: bytes, **metadata: str) -> bytes:
    sent = tuple((key.replace("_", "-"), value) for key, value in metadata.items())
    return await w.channel.unary_unary(method)(message, metadata=sent, timeout=DEADLINE_S)


async def refused(w, method: str, message: bytes = b"", **metadata: str) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(w, method, message, **metadata)
    return caught.value.code().name, caught.value.details()


def named(name: str) -> bytes:
    """A request with something besides the name."""
    return replace_string(b"\x12\x03abc", (1, 1), name)


async def test_listed_rpc_is_routed_by_its_path_and_gets_the_id_there():
    async with world(FakeRuntime(facts=SERVING), dataplane=LISTED) as w:
        await w.apply("p")
        answer = await call(w, PREDICT, named("p"), x_mine="1")
        (model,) = w.runtime.loads
        assert read_string(answer, (1, 1)) == model
        assert answer == replace_string(named("p"), (1, 1), model)
        (method, _, metadata) = w.plane.foreign[0]
        assert (method, metadata["mm-model-id"], metadata["x-mine"]) == (PREDICT, model, "1")


async def test_name_may_come_in_metadata_where_the_message_has_none():
    async with world(FakeRuntime(facts=SERVING), dataplane=LISTED) as w:
        await w.apply("p")
        answer = await call(w, PREDICT, b"", mm_vmodel_id="p")
        assert read_string(answer, (1, 1)) == w.runtime.loads[0]
        code, text = await refused(w, PREDICT)
        assert (code, text) == ("INVALID_ARGUMENT", "field 1.1: required")


async def test_unknown_names_and_broken_messages_are_refused_as_ever():
    async with world(FakeRuntime(facts=SERVING), dataplane=LISTED) as w:
        assert await refused(w, PREDICT, named("x")) == ("NOT_FOUND", "predictor 'x' not found")
        code, text = await refused(w, PREDICT, b"\xff\xff")
        assert code == "INVALID_ARGUMENT"
        assert text.startswith("field 1.1: ")


async def test_rpc_that_is_not_listed_is_unimplemented():
    async with world(FakeRuntime(facts=SERVING), dataplane=LISTED) as w:
        await w.apply("p")
        assert (await refused(w, META, mm_vmodel_id="p"))[0] == "UNIMPLEMENTED"
        assert not w.plane.foreign


async def test_other_rpcs_go_by_metadata_where_they_are_allowed():
    facts = {"is_any_method_allowed": True}
    async with world(FakeRuntime(facts=facts), dataplane=Dataplane(are_others_allowed=True)) as w:
        await w.apply("p")
        assert await call(w, META, b"body", mm_vmodel_id="p") == b"body"
        assert w.plane.foreign[0][2]["mm-model-id"] == w.runtime.loads[0]
        assert await refused(w, META) == ("INVALID_ARGUMENT", "mm-vmodel-id: required")
        code, _ = await refused(w, "/grpc.health.v1.Health/Nothing", mm_vmodel_id="p")
        assert code == "UNIMPLEMENTED"


async def test_nothing_is_kept_for_each_name_that_clients_make_up():
    facts = {"is_any_method_allowed": True}
    async with world(FakeRuntime(facts=facts), dataplane=Dataplane(are_others_allowed=True)) as w:
        await w.apply("p")
        await call(w, META, b"", mm_vmodel_id="p")
        before = method_objects()
        for number in range(NAMES):
            await call(w, f"/made.Up/Name{number}", b"", mm_vmodel_id="p")
        assert len(w.plane.foreign) == NAMES + 1
        assert method_objects() - before < NAMES / 2


def method_objects() -> int:
    """What gRPC's clients in this process hold for methods."""
    gc.collect()
    return sum(
        issubclass(type(found), grpc.aio.UnaryUnaryMultiCallable) for found in gc.get_objects()
    )


async def test_rpc_that_the_runtime_does_not_serve_is_unimplemented():
    async with world(FakeRuntime(), dataplane=LISTED) as w:
        await w.apply("p")
        code, text = await refused(w, PREDICT, named("p"))
        assert code == "UNIMPLEMENTED"
        assert text.endswith("does not serve tensorflow.serving.PredictionService/Predict")


@asynccontextmanager
async def pair(**facts):
    """A node with a runtime, and one that only routes."""
    registry = MemoryRegistry()
    one, two = (
        Identity(NodeId(name), runtime, address=f"127.0.0.1:{port}")
        for name, runtime, port in zip(
            ("holder", "router"), (RUNTIME, None), free_ports(2), strict=True
        )
    )
    async with (
        world(
            FakeRuntime(facts=facts),
            identity=one,
            registry=registry,
            management=one.address,
            dataplane=LISTED,
        ) as holder,
        world(
            identity=two,
            registry=registry,
            management=two.address,
            dataplane=LISTED,
        ) as router,
    ):
        yield holder, router


async def test_id_is_put_in_by_the_node_that_holds_the_model():
    async with pair(**SERVING) as (holder, router):
        await holder.apply("p")
        await eventually(lambda: "p" in router.running.node.view.predictors)
        answer = await call(router, PREDICT, named("p"))
        assert read_string(answer, (1, 1)) == holder.runtime.loads[0]
        assert len(holder.plane.foreign) == 1


async def test_refusal_of_the_holder_comes_through_the_other_node():
    async with pair() as (holder, router):
        await holder.apply("p")
        await eventually(lambda: "p" in router.running.node.view.predictors)
        code, text = await refused(router, PREDICT, named("p"))
        assert (code, text.startswith("the runtime of 'p-")) == ("UNIMPLEMENTED", True)


async def test_runtime_that_limits_its_calls_gets_so_many_at_a_time():
    runtime = FakeRuntime(facts={"is_concurrency_limited": True}, max_concurrency=2)
    async with world(runtime) as w:
        await w.apply("p")
        w.plane.gates["slow"] = asyncio.Event()
        asked = [begin(w.ask("p", "slow")) for _ in range(6)]
        await eventually(lambda: len(w.plane.metadata) == 2)
        await asyncio.sleep(0.1)
        assert len(w.plane.metadata) == 2
        w.plane.gates["slow"].set()
        for task in asked:
            assert (await task).id == "slow"


async def test_too_many_for_such_a_runtime_are_refused():
    runtime = FakeRuntime(facts={"is_concurrency_limited": True}, max_concurrency=1)
    async with world(runtime) as w:
        await w.apply("p")
        w.plane.gates["slow"] = asyncio.Event()
        asked = [begin(w.ask("p", "slow")) for _ in range(17)]
        refusals = []

        async def first_refusal() -> bool:
            refusals[:] = [task for task in asked if task.done()]
            return bool(refusals)

        await eventually(first_refusal)
        w.plane.gates["slow"].set()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refusals[0]
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answered = [task for task in asked if task is not refusals[0]]
        assert len([await task for task in answered]) == 16
