"""What clients may ask of a server, and the request id of a call that fails."""

import grpc
import pytest

from router.server import ServerLimits
from tests.support.world import eventually, world


async def fails(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_headers_over_the_limit_are_refused_and_others_served():
    async with world(server=ServerLimits(metadata_bytes=4096)) as w:
        await w.apply("p")
        error = await fails(w.ask("p", metadata=(("x-large", "x" * 8192),)))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await w.ask("p", metadata=(("x-small", "x" * 1024),))).model_name


async def test_connections_over_the_limit_are_closed_and_the_others_served():
    async with world(server=ServerLimits(connections=2)) as w:
        await w.apply("p")
        await w.ask("p")
        address = f"127.0.0.1:{w.running.port}"
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with (
            grpc.aio.insecure_channel(address, options=options) as second,
            grpc.aio.insecure_channel(address, options=options) as third,
        ):
            ready = "/inference.GRPCInferenceService/ServerLive"
            await second.unary_unary(ready)(b"")
            error = await fails(third.unary_unary(ready)(b"", timeout=5))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            await second.unary_unary(ready)(b"")
        assert (await w.ask("p")).model_name


async def test_failure_carries_the_request_id_of_the_caller(caplog):
    caplog.set_level("INFO")
    async with world() as w:
        error = await fails(w.ask("nobody", metadata=(("x-request-id", "mine-1"),)))
        assert dict(error.trailing_metadata())["x-request-id"] == "mine-1"
        (line,) = [r for r in caplog.records if r.getMessage() == "request refused"]
        assert (line.request_id, line.code) == ("mine-1", "NOT_FOUND")


async def test_failure_without_a_request_id_gets_one():
    async with world() as w:
        first, second = await fails(w.ask("nobody")), await fails(w.ask("nobody"))
        ids = {dict(error.trailing_metadata())["x-request-id"] for error in (first, second)}
        assert len(ids) == 2
        assert all(len(request_id) == 16 for request_id in ids)


async def test_request_id_goes_to_the_model_and_comes_with_its_error():
    async with world() as w:
        await w.apply("p")
        w.plane.errors["bad"] = (grpc.StatusCode.DATA_LOSS, "from the model")
        error = await fails(w.ask("p", "bad", metadata=(("x-request-id", "mine-2"),)))
        await eventually(lambda: w.plane.metadata)
        assert w.plane.metadata[-1]["x-request-id"] == "mine-2"
        assert dict(error.trailing_metadata())["x-request-id"] == "mine-2"
        assert dict(error.trailing_metadata())["x-trailer"] == "from the model"
