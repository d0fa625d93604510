"""Streams through a node on loopback, in both published shapes."""

import asyncio

import grpc
import pytest

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.world import begin, eventually, world

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
SLOW_MESSAGES = 128


def message(name: str, request_id: str, size: int = 0) -> bytes:
    request = kfs.ModelInferRequest(model_name=name, id=request_id)
    if size:
        request.raw_input_contents.append(bytes(size))
    return request.SerializeToString()


def open_stream(w):
    return w.channel.stream_stream(METHOD)(timeout=10)


async def test_stream_answers_each_message_under_the_backing_model():
    async with world() as w:
        await w.apply("p")
        stream = open_stream(w)
        for request_id in "abc":
            await stream.write(message("p", request_id))
            answer = kfs.ModelInferResponse.FromString(await stream.read())
            assert (answer.model_name, answer.id) == (w.runtime.loads[0], request_id)
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_stream_of_tritons_shape_passes_as_it_is():
    async with world() as w:
        w.plane.is_triton = True
        await w.apply("p")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        answer = await stream.read()
        assert answer[0] == 0x12  # field 2: infer_response
        assert kfs.ModelInferResponse.FromString(answer[2:]).id == "a"
        stream.cancel()


async def test_stream_message_without_a_name_goes_with_the_first():
    async with world() as w:
        await w.apply("p")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        await stream.write(message("", "b"))
        answer = kfs.ModelInferResponse.FromString(await stream.read())
        assert (answer.model_name, answer.id) == (w.runtime.loads[0], "b")
        stream.cancel()


async def test_stream_that_names_another_predictor_later_is_refused():
    async with world() as w:
        await w.apply("p")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        await stream.write(message("q", "b"))
        await _ends(stream, grpc.StatusCode.INVALID_ARGUMENT, "'q' in a stream that began with 'p'")
        assert w.plane.streamed == ["a"]


@pytest.mark.parametrize(
    ("first", "code", "words"),
    [
        (message("nobody", "a"), grpc.StatusCode.NOT_FOUND, "nobody"),
        (message("", "a"), grpc.StatusCode.INVALID_ARGUMENT, "model_name: required"),
        (b"\x0a\x50abc", grpc.StatusCode.INVALID_ARGUMENT, "no valid protobuf"),
    ],
    ids=["unknown", "unnamed", "broken"],
)
async def test_stream_with_a_bad_first_message_has_its_code(first, code, words):
    async with world() as w:
        stream = open_stream(w)
        await stream.write(first)
        await _ends(stream, code, words)


async def test_stream_without_a_message_is_refused():
    async with world() as w:
        stream = open_stream(w)
        await stream.done_writing()
        await _ends(stream, grpc.StatusCode.INVALID_ARGUMENT, "the stream has no message")


async def test_stream_error_of_the_model_passes_with_its_trailers():
    async with world() as w:
        await w.apply("p")
        w.plane.errors["b"] = (grpc.StatusCode.DATA_LOSS, "from the model")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        await stream.write(message("p", "b"))
        await _ends(stream, grpc.StatusCode.DATA_LOSS, "from the model")
        assert ("x-trailer", "from the model") in tuple(await stream.trailing_metadata())


async def test_stream_holds_its_copy_until_it_ends():
    runtime = FakeRuntime(capacity_bytes=MB)
    async with world(runtime) as w:
        await w.apply("p")
        await w.apply("q", path="b")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        other = begin(w.ask("q"))
        await w.reaches("q", "Loading  UpToDate")
        await stream.write(message("p", "b"))
        assert kfs.ModelInferResponse.FromString(await stream.read()).id == "b"
        assert not runtime.unloads
        await stream.done_writing()
        assert (await other).model_name.startswith("q-")
        assert runtime.peak_bytes == MB


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_stream_counts_as_a_call_to_a_runtime_that_limits_them(is_cancelled):
    runtime = FakeRuntime(facts={"is_concurrency_limited": True}, max_concurrency=1)
    async with world(runtime) as w:
        await w.apply("p")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        unary = begin(w.ask("p", "unary"))
        later = open_stream(w)
        await later.write(message("p", "later"))
        await later.done_writing()
        await asyncio.sleep(0.1)
        assert not unary.done()
        if is_cancelled:
            stream.cancel()
        else:
            await stream.done_writing()
        assert (await unary).id == "unary"
        assert kfs.ModelInferResponse.FromString(await later.read()).id == "later"


async def test_stream_that_a_client_cancels_lets_go_of_its_copy():
    runtime = FakeRuntime(capacity_bytes=MB)
    async with world(runtime) as w:
        await w.apply("p")
        await w.apply("q", path="b")
        stream = open_stream(w)
        await stream.write(message("p", "a"))
        await stream.read()
        stream.cancel()
        assert (await w.ask("q")).model_name.startswith("q-")


async def test_stream_to_a_slow_model_is_not_read_ahead():
    async with world() as w:
        await w.apply("p")
        w.plane.gates["0"] = asyncio.Event()
        stream = open_stream(w)
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(SLOW_MESSAGES):
                await stream.write(message("p", str(number), size=MB))
                sent += 1

        sending = begin(send())
        await eventually(lambda: w.plane.streamed)
        before = -1
        while before != sent:  # until what is written is held back
            before = sent
            await asyncio.sleep(0.2)
        assert sent < SLOW_MESSAGES / 2  # gRPC's own windows grow up to 16 MiB each
        w.plane.gates["0"].set()
        for number in range(SLOW_MESSAGES):
            answer = kfs.ModelInferResponse.FromString(await stream.read())
            assert answer.id == str(number)
        await sending


async def _ends(stream, code, words):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _read_all(stream)
    assert caught.value.code() is code
    assert words in caught.value.details()


async def _read_all(stream):
    while await stream.read() is not grpc.aio.EOF:
        pass
