"""Request ids: the caller's own or one that is made, in the failure and in its log line."""

import json
import logging

import grpc
import grpc.aio
import pytest

from mesh.ops.logs import JsonFormatter
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.world import World, world

SECRET_TENSOR = 8_675_309


class Lines(logging.Handler):
    """Every line that the process logs, as an object."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def with_id(self, request_id: str) -> list[dict[str, object]]:
        return [line for line in self.lines if line.get("request_id") == request_id]


@pytest.fixture
def lines():
    handler = Lines()
    logger = logging.getLogger()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(before)
    logger.removeHandler(handler)


async def failure(w: World, name: str, **fields) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await w.ask(name, **fields)
    return raised.value


def id_in(error: grpc.aio.AioRpcError) -> str:
    return str(dict(error.trailing_metadata())["x-request-id"])


async def test_callers_request_id_is_in_the_failure_and_in_one_line(lines: Lines):
    async with world() as w:
        error = await failure(w, "nobody", metadata=(("x-request-id", "mine-1"),))
        assert id_in(error) == "mine-1"
        (line,) = lines.with_id("mine-1")
        assert (line["code"], line["cause"]) == ("NOT_FOUND", "predictor 'nobody' not found")


async def test_made_request_ids_differ_and_are_logged(lines: Lines):
    async with world() as w:
        ids = {id_in(await failure(w, "nobody")) for _ in range(3)}
        assert len(ids) == 3
        assert all(len(lines.with_id(request_id)) == 1 for request_id in ids)


async def test_failure_of_the_model_has_the_request_id_too(lines: Lines):
    async with world() as w:
        await w.apply("p")
        w.plane.errors["bad"] = (grpc.StatusCode.INTERNAL, "it went wrong")
        error = await failure(w, "p", request_id="bad", metadata=(("x-request-id", "mine-2"),))
        assert id_in(error) == "mine-2"
        (line,) = lines.with_id("mine-2")
        assert line["code"] == "INTERNAL"


async def test_long_request_id_is_cut(lines: Lines):
    async with world() as w:
        error = await failure(w, "nobody", metadata=(("x-request-id", "m" * 1000),))
        assert id_in(error) == "m" * 128


async def test_no_line_holds_a_tensor(lines: Lines):
    async with world() as w:
        await w.apply("p")
        tensor = kfs.ModelInferRequest.InferInputTensor(name="a", datatype="INT64", shape=[1])
        tensor.contents.int64_contents.append(SECRET_TENSOR)
        request = kfs.ModelInferRequest(model_name="p", inputs=[tensor])
        await w.infer.ModelInfer(request, timeout=5)
        request.model_name = "nobody"
        with pytest.raises(grpc.aio.AioRpcError):
            await w.infer.ModelInfer(request, timeout=5)
    assert lines.lines
    assert str(SECRET_TENSOR) not in json.dumps(lines.lines)
