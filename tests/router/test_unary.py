"""Calls by the public way and by the short one, held to the same, against a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from router.unary import Reply, UnaryCall, public, short, unary_call
from tests.support.world import begin

METHOD = "/a.Service/Method"
BINARY = bytes(range(256))
SENT = (("x-tag", "1"), ("x-tag", "2"), ("x-bytes-bin", BINARY))
AT_ONCE_S = 5.0


@dataclass
class Upstream(grpc.GenericRpcHandler):
    """Answers each method by `answer`, and notes the callers that left."""

    address: str = ""
    answer: Callable[[bytes, Any], Awaitable[bytes]] | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def service(self, handler_call_details):
        return grpc.unary_unary_rpc_method_handler(self._handle)

    async def _handle(self, message, context):
        self.begun.set()
        try:
            return await self.answer(message, context)
        except asyncio.CancelledError:
            self.left.set()
            raise


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    served = Upstream()
    options = (("grpc.max_receive_message_length", -1),)
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((served,))
    served.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield served
    await server.stop(0)


@pytest.fixture(params=[public, short], ids=["public", "short"])
async def call(request, upstream) -> AsyncIterator[UnaryCall]:
    options = (("grpc.max_receive_message_length", -1),)
    async with grpc.aio.insecure_channel(upstream.address, options=options) as channel:
        yield request.param(channel, METHOD)


async def hanging(message: bytes, context: Any) -> bytes:
    await asyncio.Event().wait()
    return b""


async def failed(call: UnaryCall, timeout_s: float | None = None) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"message", (), timeout_s)
    return caught.value


async def test_the_answer_comes_with_what_is_around_it(upstream, call):
    came: list[Any] = []

    async def answer(message: bytes, context: Any) -> bytes:
        came.extend(pair for pair in context.invocation_metadata() if pair[0].startswith("x-"))
        await context.send_initial_metadata((("x-first", "a"),))
        context.set_trailing_metadata((("x-last", "b"), ("x-last-bin", BINARY)))
        return message[::-1]

    upstream.answer = answer
    reply = await call(b"abc", SENT, None)
    assert (reply.message, dict(reply.initial)) == (b"cba", {"x-first": "a"})
    assert dict(reply.trailing) == {"x-last": "b", "x-last-bin": BINARY}
    assert sorted(map(tuple, came), key=repr) == sorted(SENT, key=repr)


@pytest.mark.parametrize("message", [b"", b"\0" * 5_000_000], ids=["empty", "5 MB"])
async def test_messages_of_any_size_with_nothing_around_them(upstream, call, message):
    async def answer(message: bytes, context: Any) -> bytes:
        return message

    upstream.answer = answer
    assert await call(message, (), 30.0) == Reply(message, (), ())


async def test_a_refusal_comes_as_it_was_given(upstream, call):
    async def answer(message: bytes, context: Any) -> bytes:
        await context.send_initial_metadata((("x-first", "a"),))
        await context.abort(grpc.StatusCode.DATA_LOSS, "gone: ü", (("x-why-bin", BINARY),))
        return b""

    upstream.answer = answer
    error = await failed(call)
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "gone: ü")
    assert list(error.initial_metadata() or ()) == [("x-first", "a")]
    assert list(error.trailing_metadata() or ()) == [("x-why-bin", BINARY)]
    assert "gone" in (error.debug_error_string() or "")


async def test_every_status_has_its_code(upstream, call):
    given = grpc.StatusCode.OK

    async def answer(message: bytes, context: Any) -> bytes:
        await context.abort(given, "no")
        return b""

    upstream.answer = answer
    for given in grpc.StatusCode:
        if given is not grpc.StatusCode.OK:
            assert (await failed(call)).code() is given


async def test_a_deadline_ends_the_call_here_and_there(upstream, call):
    upstream.answer = hanging
    error = await failed(call, 0.05)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    async with asyncio.timeout(AT_ONCE_S):
        await upstream.left.wait()


async def test_whoever_leaves_cancels_the_call_upstream(upstream, call):
    upstream.answer = hanging
    task = begin(call(b"message", (), None))
    await upstream.begun.wait()
    task.cancel()
    async with asyncio.timeout(AT_ONCE_S):
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        await upstream.left.wait()
    assert caught.tb is not None  # it has kept the call, which would be cancelled once forgotten


async def test_one_that_leaves_before_the_call_is_sent(upstream, call):
    upstream.answer = hanging
    task = begin(call(b"message", (), None))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_calls_at_the_same_time_do_not_meet(upstream, call):
    all_in = asyncio.Event()
    waiting: list[bytes] = []

    async def answer(message: bytes, context: Any) -> bytes:
        waiting.append(message)
        if len(waiting) == 20:
            all_in.set()
        await all_in.wait()
        return message

    upstream.answer = answer
    messages = [str(number).encode() for number in range(20)]
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(call(message, (), 10.0)) for message in messages]
    assert [task.result().message for task in asked] == messages


@pytest.mark.parametrize("way", [public, short])
async def test_a_server_that_is_not_there_is_unavailable(way):
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        error = await failed(way(channel, METHOD), AT_ONCE_S)
    assert error.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_short_way_is_taken_with_the_version_that_is_locked():
    """Red after an update of grpcio: run this file over the new one, then add it to `TRIED`."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        assert unary_call(channel, METHOD).__qualname__.startswith(short.__name__)


@pytest.mark.parametrize("version", ["1.84.3", "1.86.0", "2.0.0.dev0"])
async def test_another_version_is_called_by_the_public_way(version):
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        call = unary_call(channel, METHOD, version)
        assert call.__qualname__.startswith(public.__name__)
