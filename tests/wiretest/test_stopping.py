"""A node that stops: what has begun ends well."""

import asyncio
from contextlib import AsyncExitStack

import grpc

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.support.fake_runtime import FakeRuntime
from tests.support.world import begin, eventually, world


async def outside(stack: AsyncExitStack, w) -> kfs_grpc.GRPCInferenceServiceStub:
    """A client whose connection outlives the node."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{w.running.port}")
    return kfs_grpc.GRPCInferenceServiceStub(await stack.enter_async_context(channel))


def ask(client, request_id: str) -> asyncio.Task:
    request = kfs.ModelInferRequest(model_name="p", id=request_id)

    async def call():
        return await client.ModelInfer(request, timeout=10)

    return begin(call())


async def test_requests_in_flight_when_a_node_stops_are_all_answered():
    async with AsyncExitStack() as stack:
        async with world() as w:
            await w.apply("p")
            client = await outside(stack, w)
            await ask(client, "first")
            gate = w.plane.gates["held"] = asyncio.Event()
            asked = [ask(client, "held") for _ in range(64)]
            await eventually(lambda: len(w.plane.metadata) == 65)
            asyncio.get_running_loop().call_later(0.3, gate.set)
        assert {(await answer).id for answer in asked} == {"held"}


async def test_requests_that_arrive_as_a_node_begins_to_stop_are_answered():
    async with AsyncExitStack() as stack:
        async with world() as w:
            await w.apply("p")
            client = await outside(stack, w)
            await ask(client, "first")
            asked = [ask(client, str(number)) for number in range(64)]  # not a handler has begun
        assert {(await answer).id for answer in asked} == {str(number) for number in range(64)}


async def test_load_that_requests_wait_for_when_a_node_stops_is_finished_and_serves_them():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with AsyncExitStack() as stack:
        async with world(runtime) as w:
            await w.apply("p")
            asked = ask(await outside(stack, w), "cold")
            await eventually(lambda: runtime.loads)
            asyncio.get_running_loop().call_later(0.3, runtime.gates["a"].set)
        assert (await asked).id == "cold"


async def test_stream_in_flight_when_a_node_stops_ends_with_its_messages():
    async with AsyncExitStack() as stack:
        async with world() as w:
            await w.apply("p")
            await w.ask("p")
            client = await outside(stack, w)
            stream = client.ModelStreamInfer(timeout=10)
            await stream.write(kfs.ModelInferRequest(model_name="p", id="1"))
            assert (await stream.read()).id == "1"

            async def finish():
                await asyncio.sleep(0.2)
                await stream.write(kfs.ModelInferRequest(model_name="p", id="2"))
                await stream.done_writing()

            ending = begin(finish())
        await ending
        assert (await stream.read()).id == "2"
        assert await stream.code() is grpc.StatusCode.OK


async def test_node_that_leaves_refuses_connections_and_serves_those_that_it_has():
    async with AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(connection_age_s=1.0))
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        port = w.running.port
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as old:
            stub = kfs_grpc.GRPCInferenceServiceStub(old)
            request = kfs.ModelInferRequest(model_name="p", id="1")
            await stub.ModelInfer(request, timeout=5)
            leaving = begin(stack.aclose())
            await eventually(lambda: is_refused(port))
            assert (await stub.ModelInfer(request, timeout=5)).id == "1"
            assert not leaving.done()
            await leaving


async def test_node_that_lingers_lets_in_new_clients_after_it_has_said_that_it_leaves():
    async with AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(connection_age_s=1.0, linger_s=1.0))
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        port = w.running.port
        leaving = begin(stack.aclose())
        await eventually(lambda: not w.running.node.is_ready)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as late:
            stub = kfs_grpc.GRPCInferenceServiceStub(late)
            request = kfs.ModelInferRequest(model_name="p", id="1")
            assert (await stub.ModelInfer(request, timeout=5)).id == "1"
        await leaving
        assert await is_refused(port)


async def test_node_that_leaves_waits_for_nobody_where_nobody_is():
    async with AsyncExitStack() as stack:
        w = await stack.enter_async_context(world(connection_age_s=60.0))
        port = w.running.port
        await w.channel.close()
        async with asyncio.timeout(10):
            await stack.aclose()
        assert await is_refused(port)


async def is_refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
