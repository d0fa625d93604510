"""A node that stops: what has begun ends well."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from mesh.ops.clock import monotonic_s
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from router import node as router_node
from router.node import QUIET_S
from tests.support.fake_runtime import FakeRuntime
from tests.support.world import begin, eventually, world

NO_SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
HTTP2_BEGINS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + NO_SETTINGS


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


async def test_node_that_leaves_serves_a_connection_that_is_idle_between_calls_until_it_has_aged():
    age_s = 3.0
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        w = await stack.enter_async_context(world(connection_age_s=age_s))
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        address, no_retries = f"127.0.0.1:{w.running.port}", (("grpc.enable_retries", 0),)
        channel = grpc.aio.insecure_channel(address, options=no_retries)
        client = kfs_grpc.GRPCInferenceServiceStub(await clients.enter_async_context(channel))
        await ask(client, "first")
        until_s = monotonic_s() + 0.4 * age_s  # gRPC ends it at nine tenths of its age or later
        async with left(stack, clients) as leaving:
            await eventually(lambda: is_refused(w.running.port))
            is_enough = False
            while not is_enough:
                await asyncio.sleep(3 * QUIET_S)
                assert (await ask(client, "later")).id == "later"
                assert not leaving.done()
                is_enough = monotonic_s() >= until_s
            await asyncio.wait([leaving])
            assert channel.get_state() is not grpc.ChannelConnectivity.READY


async def test_node_that_leaves_stops_only_once_a_client_has_let_go_of_an_aged_connection():
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        w = await stack.enter_async_context(world(connection_age_s=0.2, grace_s=0.2))
        reader = await clients.enter_async_context(slow_client(w.running.port))
        async with left(stack, clients) as leaving:
            assert not await is_over(reader, within_s=1.5)  # it has aged, and nothing is in flight
            assert not leaving.done()
            await clients.aclose()
            await asyncio.wait([leaving], timeout=5.0)
            assert leaving.done()


async def test_node_that_leaves_waits_no_longer_than_so_for_a_client_that_does_not_let_go(
    monkeypatch: pytest.MonkeyPatch,
):
    age_s, let_go_s = 0.2, 0.5
    monkeypatch.setattr(router_node, "LET_GO_S", let_go_s)
    async with AsyncExitStack() as stack, AsyncExitStack() as clients:
        w = await stack.enter_async_context(world(connection_age_s=age_s, grace_s=0.2))
        reader = await clients.enter_async_context(slow_client(w.running.port))
        begun_s = monotonic_s()
        async with left(stack, clients):
            assert await is_over(reader, within_s=8.0)
            assert monotonic_s() - begun_s > age_s + let_go_s


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


@asynccontextmanager
async def left(
    node: AsyncExitStack, clients: AsyncExitStack
) -> AsyncIterator[asyncio.Future[None]]:
    """The node leaves, and has left at the end: its clients go at last, whatever the test found."""
    leaving = begin(node.aclose())
    try:
        yield leaving
    finally:
        await clients.aclose()
        await leaving


@asynccontextmanager
async def slow_client(port: int) -> AsyncIterator[asyncio.StreamReader]:
    """A client that begins a connection and does not get round to closing it, until it is left."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HTTP2_BEGINS)
        await reader.readexactly(len(NO_SETTINGS))  # something of the server's: it has it
        yield reader
    finally:
        writer.close()


async def is_over(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the server ends the connection in that time."""
    try:
        async with asyncio.timeout(within_s):
            while await reader.read(1024):
                pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


async def is_refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
