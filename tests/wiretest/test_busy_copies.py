"""A copy for which as many calls wait as may: another one is tried before the caller is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from mesh.agent.calls import LEAST_QUEUE
from mesh.agent.copy import Purpose
from mesh.agent.engine import HOP_WORTH
from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId
from mesh.peers.port import Ask
from mesh.registry.memory import MemoryRegistry
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.builders import RUNTIME, document
from tests.support.fake_runtime import FakeRuntime
from tests.support.ports import free_ports
from tests.support.world import World, begin, eventually, world

REFUSED = "too many requests wait for the runtime of this model: the limit is 16"
HELD = "held"
PREDICTOR = {
    "apiVersion": "wmlserving.ai.ibm.com/v1",
    "kind": "Predictor",
    "metadata": {"name": "p"},
    "spec": document() | {"minCopies": 2},
}
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@asynccontextmanager
async def two_copies() -> AsyncIterator[tuple[World, World, asyncio.Event]]:
    """Two nodes with a copy of "p" each, of which one call at a time is let in, and 15 wait.

    Requests with the id "held" are answered once the event is set.
    """
    registry = MemoryRegistry()
    gate = asyncio.Event()
    one, two = (
        Identity(NodeId(f"n{port}"), RUNTIME, address=f"127.0.0.1:{port}") for port in free_ports(2)
    )
    async with (
        world(_limited(), identity=one, registry=registry, management=one.address) as left,
        world(_limited(), identity=two, registry=registry, management=two.address) as right,
    ):
        await left.manage.Apply(pb.ApplyRequest(json=json.dumps(PREDICTOR)))
        for w in (left, right):
            w.plane.gates[HELD] = gate
            await eventually(lambda w=w: w.running.node.routes.get("p"))
            node = w.running.node  # told, since it would see for itself only after seconds
            model = node.routes["p"][0].id
            await node.ensure_loaded(Ask(model, Purpose.EXTRA.value, node.follower.revision))
        for w in (left, right):
            await eventually(lambda w=w: len(w.running.node.routes["p"]) == 2)
        try:
            yield left, right, gate
        finally:
            gate.set()


def _limited() -> FakeRuntime:
    return FakeRuntime(max_concurrency=1, facts={"is_concurrency_limited": True})


def held_by(w: World) -> int:
    return w.running.node.routes["p"][0].in_flight


async def refused(w: World) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await w.ask("p")
    return caught.value


async def passed_on(w: World) -> None:
    """A call that another node passed on to this one, and that is held."""
    model = w.running.node.routes["p"][0].id
    message = kfs.ModelInferRequest(model_name=model, id=HELD).SerializeToString()
    async with grpc.aio.insecure_channel(w.running.node.identity.address) as channel:
        await channel.unary_unary(METHOD)(message, metadata=(("wml-model-bin", model.encode()),))


async def test_other_copies_are_tried_before_anybody_is_refused():
    async with two_copies() as (left, right, gate):
        held = [begin(left.ask("p", HELD)) for _ in range(2 * LEAST_QUEUE)]
        await eventually(lambda: (held_by(left), held_by(right)) == (LEAST_QUEUE, LEAST_QUEUE))
        assert not any(task.done() for task in held)
        error = await refused(left)
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, REFUSED)
        assert not [key for key, _ in error.trailing_metadata() if key.startswith("wml-")]
        gate.set()
        assert {(await task).id for task in held} == {HELD}


async def test_copy_that_others_keep_busy_is_left_for_the_one_here():
    async with two_copies() as (left, right, gate):
        # The other copy is full of what came from elsewhere: nothing of it is known here.
        full = [begin(passed_on(right)) for _ in range(LEAST_QUEUE)]
        await eventually(lambda: held_by(right) == LEAST_QUEUE)
        held = [begin(left.ask("p", HELD)) for _ in range(LEAST_QUEUE)]
        await eventually(lambda: held_by(left) == LEAST_QUEUE)
        assert not any(task.done() for task in held)
        assert (await refused(left)).details() == REFUSED
        gate.set()
        for task in (*full, *held):
            await task


@pytest.mark.parametrize(("balanced", "stays"), [("true", True), ("false", False)])
async def test_calls_of_clients_that_balance_stay_where_they_came_to(balanced: str, *, stays: bool):
    async with two_copies() as (left, right, gate):
        message = kfs.ModelInferRequest(model_name="p", id=HELD)
        metadata = (("mm-balanced", balanced),)
        count = LEAST_QUEUE
        held = [begin(_infer(left, message, metadata)) for _ in range(count)]
        await eventually(lambda: held_by(left) + held_by(right) == count)
        assert (held_by(right) == 0) == stays
        gate.set()
        for task in held:
            await task


async def _infer(w: World, message: kfs.ModelInferRequest, metadata: tuple[tuple[str, str], ...]):
    return await w.infer.ModelInfer(message, metadata=metadata)


async def streamed(w: World) -> list[str]:
    message = kfs.ModelInferRequest(model_name="p", id="streamed").SerializeToString()
    stream = w.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    return [kfs.ModelInferResponse.FromString(m).id async for m in stream(iter([message]))]


async def test_stream_goes_to_the_other_node_where_the_copy_here_is_busy():
    async with two_copies() as (left, right, gate):
        # The other one has some as well, so that the one here, which is nearer, is tried first.
        held = [begin(left.ask("p", HELD)) for _ in range(2 * LEAST_QUEUE - 4)]
        await eventually(lambda: held_by(left) == LEAST_QUEUE)
        stream = begin(streamed(left))
        await eventually(lambda: held_by(right) == LEAST_QUEUE - 4 + 1)
        gate.set()
        assert await stream == right.plane.streamed == ["streamed"]
        for task in held:
            await task


async def test_stream_comes_back_from_the_other_node_where_the_copy_there_is_busy():
    async with two_copies() as (left, right, gate):
        full = [begin(passed_on(right)) for _ in range(LEAST_QUEUE)]
        await eventually(lambda: held_by(right) == LEAST_QUEUE)
        held = [begin(left.ask("p", HELD)) for _ in range(HOP_WORTH + 1)]
        await eventually(lambda: held_by(left) == len(held))
        stream = begin(streamed(left))
        await eventually(lambda: held_by(left) == len(held) + 1)
        gate.set()
        assert await stream == left.plane.streamed == ["streamed"]
        for task in (*full, *held):
            await task
