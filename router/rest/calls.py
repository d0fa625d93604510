"""The calls of V2 over HTTP: what of them goes to a model, and what is answered here."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc.aio
from aiohttp import web

from mesh.core.errors import InvalidRequest, MeshError
from mesh.ops.clock import monotonic_s
from mesh.ops.metrics import Metrics
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.v2_binary import Wanted
from mesh.wire.v2_http import LENGTH_HEADER, read_body, write_body
from router.about import NAME, VERSION
from router.naming import kserve
from router.port import Mesh
from router.refusal import code_of
from router.rest.failure import JSON, HttpProblem
from router.rest.request import body_of, deadline_of, decompressed, metadata_of, too_large
from router.route import Router
from router.server import ROUTED, SERVICE, ServerLimits

EXTENSIONS = ("binary_tensor_data",)
IDENTITY = "identity"
BINARY = "application/octet-stream"
# What takes longer to convert than the loop may stand still goes to a thread.
ON_LOOP_BYTES = 4 * 1024
THREADS = 2

Result = TypeVar("Result")


class Calls:
    """Each answers one request. They raise MeshError, AioRpcError and HttpProblem."""

    def __init__(self, router: Router, mesh: Mesh, metrics: Metrics, limits: ServerLimits) -> None:
        self._unary = router.unary
        self._mesh = mesh
        self._ended = metrics.api.ended
        self._limits = limits
        self._threads = ThreadPoolExecutor(THREADS, "rest")
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """How many requests to models have begun and not ended."""
        return self._in_flight

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def infer(self, request: web.BaseRequest, name: str, version: str) -> web.Response:
        most_bytes = self._limits.message_bytes
        body = await body_of(request, self._limits)
        if (encoding := request.headers.get("Content-Encoding", IDENTITY).lower()) != IDENTITY:
            body = await self._in_thread(decompressed, body, encoding, most_bytes)
        length = request.headers.get(LENGTH_HEADER)
        message, wanted = await self._converted(len(body), _request, body, length, name, version)
        if len(message) > most_bytes:
            raise too_large(most_bytes)
        reply = await self._routed("ModelInfer", message, request)
        content, json_bytes = await self._converted(len(reply), _answer, reply, wanted)
        if json_bytes is None:
            return web.Response(body=content, content_type=JSON)
        headers = {LENGTH_HEADER: str(json_bytes)}
        return web.Response(body=content, content_type=BINARY, headers=headers)

    async def metadata(self, request: web.BaseRequest, name: str, version: str) -> web.Response:
        asked = kfs.ModelMetadataRequest(name=name, version=version)
        reply = await self._routed("ModelMetadata", asked.SerializeToString(), request)
        return _json(_metadata(kfs.ModelMetadataResponse.FromString(reply)))

    async def model_ready(self, _: web.BaseRequest, name: str) -> web.Response:
        is_ready = self._mesh.is_model_ready(name)
        return _json({"name": name, "ready": is_ready}, _status(is_ready=is_ready))

    async def ready(self, _: web.BaseRequest) -> web.Response:
        is_ready = self._mesh.is_ready()
        return _json({"ready": is_ready}, _status(is_ready=is_ready))

    async def live(self, _: web.BaseRequest) -> web.Response:
        return _json({"live": True})

    async def server(self, _: web.BaseRequest) -> web.Response:
        return _json({"name": NAME, "version": VERSION, "extensions": EXTENSIONS})

    async def _routed(self, name: str, message: bytes, request: web.BaseRequest) -> bytes:
        """The answer of a model to a message; counted as a call by gRPC is."""
        deadline_s = deadline_of(request)
        metadata = metadata_of(request)
        self._in_flight += 1
        began_s = monotonic_s()
        sizes: tuple[int, ...] = (len(message),)
        code = "UNKNOWN"
        try:
            naming = kserve(ROUTED[name])
            reply = await self._unary(f"/{SERVICE}/{name}", naming, message, metadata, deadline_s)
            code, sizes = "OK", (len(message), len(reply.message))
        except (MeshError, grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            code = code_of(error)
            raise
        finally:
            self._in_flight -= 1
            self._ended(name, code, monotonic_s() - began_s, *sizes)
        return reply.message

    async def _converted(self, size: int, convert: Callable[..., Result], *given: Any) -> Result:
        if size <= ON_LOOP_BYTES:
            return convert(*given)
        return await self._in_thread(convert, *given)

    async def _in_thread(self, work: Callable[..., Result], *given: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _request(body: bytes, length: str | None, name: str, version: str) -> tuple[bytes, Wanted]:
    message, wanted = read_body(body, length, name, version)
    return message.SerializeToString(), wanted


def _answer(reply: bytes, wanted: Wanted) -> tuple[bytes, int | None]:
    try:
        return write_body(kfs.ModelInferResponse.FromString(reply), wanted)
    except InvalidRequest as error:  # no fault of the caller's
        raise HttpProblem(500, f"the model's answer cannot be shown: {error.message}") from error


def _metadata(answer: kfs.ModelMetadataResponse) -> dict[str, Any]:
    """int64 as JSON has it, where protobuf's own JSON has strings."""
    return {
        "name": answer.name,
        "versions": list(answer.versions),
        "platform": answer.platform,
        "inputs": [_tensor(tensor) for tensor in answer.inputs],
        "outputs": [_tensor(tensor) for tensor in answer.outputs],
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _status(*, is_ready: bool) -> int:
    """As MLServer and Triton have it: V2 asks for some 4xx."""
    return 200 if is_ready else 400


def _json(fields: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response(fields, status=status)
