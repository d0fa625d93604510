"""V2 over HTTP on a node: the same way as by gRPC, in JSON."""

import asyncio
import gzip
import json
import re
import struct
import tracemalloc
import zlib
from typing import Any

import aiohttp
import grpc
import pytest

from router.rest.failure import HttpProblem
from router.rest.request import decompressed
from router.server import ServerLimits
from tests.support.world import World, begin, eventually, world
from tests.wiretest.test_administration import pair

INPUT = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.5, 2.0]}
BODY = {"inputs": [INPUT]}
JSON = {"Content-Type": "application/json"}
LENGTH = "Inference-Header-Content-Length"


def url(w: World, path: str) -> str:
    return f"http://127.0.0.1:{w.running.rest_port}{path}"


async def call(
    w: World, path: str, body: object = None, method: str = "", **headers: str
) -> tuple[int, Any, Any]:
    """Status, the JSON of the answer, and its headers. `body` is JSON, or bytes as they are."""
    data = json.dumps(body).encode() if body is not None and not isinstance(body, bytes) else body
    given = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    verb = method or ("GET" if data is None else "POST")
    async with (
        aiohttp.ClientSession() as session,
        session.request(verb, url(w, path), data=data, headers=given) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def infer(w: World, name: str = "p", request_id: str = "", **headers: str):
    """Status and answer of a request to a Predictor."""
    body = BODY | {"id": request_id}
    return (await call(w, f"/v2/models/{name}/infer", body, **headers))[:2]


async def test_infer_is_answered_by_the_model_behind_the_name():
    async with world() as w:
        await w.apply("p")
        model = (await w.ask("p")).model_name
        body = BODY | {"id": "r1", "model_name": "other"}
        status, answer, headers = await call(w, "/v2/models/p/infer", body)
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert answer == {"model_name": model, "id": "r1", "outputs": [INPUT]}
        path = "/v2/models/p/versions/7/infer"
        assert (await call(w, path, BODY))[1]["model_version"] == "7"


async def test_tensors_may_come_and_go_as_bytes():
    async with world() as w:
        await w.apply("p")
        raw = struct.pack("<2e", 1.5, 2.0)
        tensor = {"name": "x", "shape": [2], "datatype": "FP16"}
        inputs = [tensor | {"parameters": {"binary_data_size": len(raw)}}]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                url(w, "/v2/models/p/infer"), data=head + raw, headers={LENGTH: str(len(head))}
            ) as answer,
        ):
            body = await answer.read()
            end = int(answer.headers[LENGTH])
            assert answer.headers["Content-Type"] == "application/octet-stream"
        assert (json.loads(body[:end])["outputs"], body[end:]) == (inputs, raw)


async def test_large_request_is_answered():
    async with world() as w:
        await w.apply("p")
        tensor = {"name": "x", "shape": [200, 300], "datatype": "INT64", "data": [7] * 60_000}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                url(w, "/v2/models/p/infer"), json={"inputs": [tensor]}, expect100=True
            ) as answer,
        ):
            assert (await answer.json())["outputs"] == [tensor]


async def test_metadata_of_model_and_server():
    async with world() as w:
        await w.apply("p")
        model = (await w.ask("p")).model_name
        for path in ("/v2/models/p", "/v2/models/p/versions/1", "/v2/models/p/"):
            status, answer, _ = await call(w, path)
            assert (status, answer["name"], answer["platform"]) == (200, model, "fake")
            assert (answer["versions"], answer["inputs"], answer["outputs"]) == ([], [], [])
        status, answer, _ = await call(w, "/v2")
        assert (status, answer["name"]) == (200, "wml-serving")
        assert answer["extensions"] == ["binary_tensor_data"]


async def test_readiness_is_that_of_grpc():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        assert (await call(w, "/v2/health/live"))[:2] == (200, {"live": True})
        assert (await call(w, "/v2/health/ready"))[:2] == (200, {"ready": True})
        assert (await call(w, "/v2/models/p/ready"))[:2] == (200, {"name": "p", "ready": True})
        assert (await call(w, "/v2/models/p/versions/1/ready"))[0] == 200
        assert (await call(w, "/v2/models/nobody/ready"))[0] == 404
        w.running.node.drain()
        assert (await call(w, "/v2/health/ready"))[:2] == (400, {"ready": False})


async def test_failures_have_the_words_of_grpc():
    async with world() as w:
        await w.apply("p")
        w.plane.errors = {
            "bad": (grpc.StatusCode.INVALID_ARGUMENT, "no such input"),
            "busy": (grpc.StatusCode.UNAVAILABLE, "come back"),
            "late": (grpc.StatusCode.DEADLINE_EXCEEDED, "too late"),
            "odd": (grpc.StatusCode.UNKNOWN, ""),
        }
        assert await infer(w, "nobody") == (404, {"error": "predictor 'nobody' not found"})
        assert await infer(w, "p", "bad") == (400, {"error": "no such input"})
        assert await infer(w, "p", "late") == (504, {"error": "too late"})
        assert await infer(w, "p", "odd") == (500, {"error": ""})
        status, answer, headers = await call(w, "/v2/models/p/infer", BODY | {"id": "busy"})
        assert (status, answer, headers["Retry-After"]) == (503, {"error": "come back"}, "1")


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/v2/models/p/infer", b"{", 400, "body: not JSON: .*"),
        ("/v2/models/p/infer", b"\xff", 400, "body: not UTF-8: .*"),
        ("/v2/models/p/infer", {"inputs": [{"name": "x"}]}, 400, r"inputs\[0\].datatype: required"),
        ("/v2/models/p/infer", None, 405, "/v2/models/p/infer takes POST, not GET"),
        ("/v2/models/p", b"{}", 405, "/v2/models/p takes GET, not POST"),
        ("/v2/models//infer", b"{}", 404, "there is nothing at /v2/models//infer"),
        ("/v2/models/p/explain", b"{}", 404, "there is nothing at .*"),
        ("/", None, 404, "there is nothing at /"),
    ],
)
async def test_request_that_is_wrong_is_refused(path: str, body: object, status: int, error: str):
    async with world() as w:
        found, answer, headers = await call(w, path, body)
        assert (found, list(answer)) == (status, ["error"])
        assert re.fullmatch(error, answer["error"]), answer
        assert headers["x-request-id"]


async def test_limits_of_bodies_and_headers():
    limits = ServerLimits(message_bytes=2_000, metadata_bytes=1_000)
    async with world(server=limits) as w:
        await w.apply("p")
        too_large = {"error": "the request is larger than 2000 bytes"}
        assert await call_status(w, b" " * 2_001) == (413, too_large)
        # 300 values of 2 bytes in JSON, of 10 in protobuf.
        tensor = {"name": "x", "shape": [300], "datatype": "INT64", "data": [-1] * 300}
        small = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
        assert len(small) < 2_000
        assert await call_status(w, small) == (413, too_large)
        assert (await call_status(w, b"{}", Content_Type="text/html"))[0] == 415
        assert (await call_status(w, b"{}", x_a="a" * 600, x_b="b" * 600))[0] == 431
        assert (await call_status(w, b"{}", x_a="a" * 1_200))[0] == 400
        assert (await call_status(w, b"{}", Content_Encoding="br"))[0] == 415
        broken = (400, {"error": "the body cannot be read: it is not encoded as it says"})
        assert await call_status(w, b"no gzip", Content_Encoding="gzip") == broken
        packed = gzip.compress(json.dumps(BODY).encode())
        assert await call_status(w, packed[:-9], Content_Encoding="gzip") == broken
        assert (await call_status(w, packed, Content_Encoding="gzip"))[0] == 200
        assert (await call_status(w, zlib.compress(packed), Content_Encoding="deflate"))[0] == 400
        bomb = gzip.compress(b" " * 1_000_000)
        assert len(bomb) < 2_000
        assert await call_status(w, bomb, Content_Encoding="gzip") == (413, too_large)
        assert (await infer(w))[0] == 200


async def call_status(w: World, body: bytes, **headers: str):
    return (await call(w, "/v2/models/p/infer", body, **headers))[:2]


async def test_body_that_does_not_arrive_in_time_is_refused():
    async with world(server=ServerLimits(body_s=0.1)) as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.running.rest_port)
        head = "POST /v2/models/p/infer HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 10\r\n\r\n{{".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        await writer.wait_closed()


async def test_connections_over_the_limit_are_closed_and_the_others_served():
    async with (
        world(server=ServerLimits(connections=1)) as w,
        aiohttp.ClientSession() as first,
    ):
        for _ in range(2):
            async with first.get(url(w, "/v2/health/live")) as answer:
                assert answer.status == 200
                await answer.read()
            with pytest.raises(aiohttp.ClientError):
                await call(w, "/v2/health/live")


async def test_what_is_no_http_is_refused_without_a_trace(caplog):
    caplog.set_level("INFO")
    async with world() as w:
        reader, writer = await asyncio.open_connection("127.0.0.1", w.running.rest_port)
        writer.write(b"\x16\x03\x01 no HTTP\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.0 400 Bad Request\r\n")
        writer.close()
        await writer.wait_closed()
    assert not [record for record in caplog.records if record.exc_info]


async def test_headers_go_to_the_runtime_and_the_request_id_comes_back():
    async with world() as w:
        await w.apply("p")
        headers = {
            "x_request_id": "order-1",
            "traceparent": "00-ab",
            "Cookie": "secret=1",
            "mm_model_id": "else",
            "x_mesh_bin": "AA",
        }
        _, _, answered = await call(w, "/v2/models/p/infer", BODY, **headers)
        assert answered["x-request-id"] == "order-1"
        given = w.plane.metadata[-1]
        assert (given["x-request-id"], given["traceparent"]) == ("order-1", "00-ab")
        assert not {"cookie", "mm-model-id", "x-mesh-bin"} & set(given)
        assert (await call(w, "/v2/models/x/infer", BODY, **headers))[2][
            "x-request-id"
        ] == "order-1"


async def test_timeout_of_the_caller_is_the_deadline():
    async with world() as w:
        await w.apply("p")
        w.plane.gates["slow"] = asyncio.Event()
        status, answer = await infer(w, "p", "slow", Grpc_Timeout="50m")
        assert (status, list(answer)) == (504, ["error"])
        status, answer = await infer(w, "p", Grpc_Timeout="soon")
        assert (status, answer["error"].split(":")[0]) == (400, "Grpc-Timeout")


async def test_client_that_leaves_cancels_its_request():
    async with world() as w:
        await w.apply("p")
        w.plane.gates["slow"] = asyncio.Event()
        asking = begin(infer(w, "p", "slow"))
        await eventually(lambda: w.plane.metadata)
        asking.cancel()
        await eventually(lambda: w.plane.cancelled == ["slow"])


async def test_requests_are_counted_as_those_of_grpc_are():
    async with world() as w:
        await w.apply("p")
        await infer(w)
        await infer(w, "nobody")
        address = f"http://127.0.0.1:{w.running.operations_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            text = await answer.text()
        for code in ("OK", "NOT_FOUND"):
            name = "modelmesh_api_request_milliseconds_count"
            assert f'{name}{{code="{code}",method="ModelInfer"}} 1.0' in text


async def test_node_that_stops_answers_what_it_has_begun_and_closes_the_connections():
    async with aiohttp.ClientSession() as session:
        async with world() as w:
            await w.apply("p")
            gate = w.plane.gates["held"] = asyncio.Event()
            asked = [begin(held(session, w)) for _ in range(16)]
            await eventually(lambda: len(w.plane.metadata) == 16)
            asyncio.get_running_loop().call_later(0.2, gate.set)
        assert {await answer for answer in asked} == {(200, "close")}


async def held(session: aiohttp.ClientSession, w: World) -> tuple[int, str]:
    """Status of a request that the model holds, and what becomes of its connection."""
    body = BODY | {"id": "held"}
    async with session.post(url(w, "/v2/models/p/infer"), json=body) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Connection", "")


async def test_any_node_of_a_mesh_answers():
    async with pair() as (left, right):
        await left.apply("p")
        (model,) = {(await infer(w))[1]["model_name"] for w in (left, right)}
        assert [w.runtime.loads for w in (left, right)].count([]) == 1
        assert model.startswith("p-")


async def test_rest_can_be_left_out():
    async with world(rest="") as w:
        await w.apply("p")
        assert w.running.rest_port == 0
        assert (await w.status("p"))["httpEndpoint"] == ""


async def test_predictors_say_where_it_is():
    async with world() as w:
        await w.apply("p")
        assert (await w.status("p"))["httpEndpoint"] == "http://localhost:0"


async def test_what_a_bomb_unpacks_to_is_never_held():
    bomb = gzip.compress(bytes(20_000_000), 1)
    tracemalloc.start()
    try:
        with pytest.raises(HttpProblem, match="the request is larger than 1000 bytes"):
            decompressed(bomb, "gzip", 1_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
