"""A runtime in memory: what a node asks of one, and a real gRPC data plane that answers for it.

It does not imitate: files, memory that is really held, a model server's own error texts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId
from mesh.core.records import BackingModel
from mesh.runtime.port import LoadedModel, RuntimeEvent, RuntimeInfo
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc

MB = 1_000_000


@dataclass
class FakeRuntime:
    """Sizes are bytes; a path in `failures` fails to load with that reason.

    A path in `gates` loads only once its event is set; `loads` has each load that was begun. A path
    in `cut_off` ends its load as a connection does that breaks. `bad_unloads` unloads are refused
    first, and `is_mute` refuses to estimate sizes. `facts` are further fields of its RuntimeInfo.
    `sizing_s`: how long it says that it took to tell a loaded model's size.
    """

    address: str = "127.0.0.1:1"
    capacity_bytes: int = 10 * MB
    max_loading: int = 4
    default_size_bytes: int = MB
    sizes: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    cut_off: set[str] = field(default_factory=set)
    bad_unloads: int = 0
    is_mute: bool = False
    unload_gate: asyncio.Event | None = None
    max_concurrency: int = 0
    sizing_s: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    is_up: bool = True
    is_data_up: bool = False
    loads: list[ModelId] = field(default_factory=list)
    unloads: list[ModelId] = field(default_factory=list)
    loaded: dict[ModelId, int] = field(default_factory=dict)
    peak_bytes: int = 0
    _events: asyncio.Queue[RuntimeEvent | None] = field(default_factory=asyncio.Queue)

    async def status(self) -> RuntimeInfo | None:
        if not self.is_up:
            raise Unavailable("the fake runtime is down")
        sizes = (self.capacity_bytes, self.max_loading, 5.0, self.default_size_bytes)
        return RuntimeInfo(*sizes, **self.facts)

    async def load(self, model: BackingModel, *, timeout_s: float) -> LoadedModel:
        path = model.source.path
        self.loads.append(model.id)
        if gate := self.gates.get(path):
            await gate.wait()
        if path in self.cut_off:
            raise Unavailable("connection reset")
        if reason := self.failures.get(path):
            raise ModelLoadFailed(reason, model=model.id)
        size_bytes = self.sizes.get(path, self.default_size_bytes)
        self.loaded[model.id] = size_bytes
        self.peak_bytes = max(self.peak_bytes, sum(self.loaded.values()))
        return LoadedModel(size_bytes, self.max_concurrency, self.sizing_s)

    async def unload(self, model: ModelId) -> None:
        if self.unload_gate is not None:
            await self.unload_gate.wait()
        if self.bad_unloads > 0:
            self.bad_unloads -= 1
            raise Unavailable("the fake runtime is busy")
        self.unloads.append(model)
        self.loaded.pop(model, None)

    async def predict_size_bytes(self, model: BackingModel) -> int:
        if self.is_mute:
            raise Unavailable("the fake runtime does not say")
        return self.sizes.get(model.source.path, 0)

    async def has(self, model: ModelId) -> bool:
        return model in self.loaded

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        pass

    def is_serving(self) -> bool:
        return self.is_data_up

    def lose_adapter(self) -> None:
        """Its adapter is gone; what is loaded still answers."""
        self.is_up = False
        self.is_data_up = True
        self._events.put_nowait(None)

    def tell(self, event: RuntimeEvent) -> None:
        self._events.put_nowait(event)

    def come_back(self) -> None:
        """It is up again, empty."""
        self.is_up = True

    def die(self) -> None:
        """It is gone, and all that it held."""
        self.is_up = False
        self.loaded.clear()
        self._events.put_nowait(None)


class DataPlane(kfs_grpc.GRPCInferenceServiceServicer, grpc.GenericRpcHandler):
    """Answers ModelInfer for what the runtime holds, with the request's id and its inputs as
    outputs, and refuses the rest.

    `gates`: a request whose id is a key waits for the event. `errors`: status by request id.
    """

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, tuple[grpc.StatusCode, str]] = {}
        self.metadata: list[dict[str, str | bytes]] = []
        self.cancelled: list[str] = []
        self.streamed: list[str] = []
        self.is_triton = False
        self.foreign: list[tuple[str, bytes, dict[str, str | bytes]]] = []

    async def ModelInfer(self, request, context):
        metadata = dict(context.invocation_metadata())
        self.metadata.append(metadata)
        if request.model_name not in self.runtime.loaded:
            text = f"model {request.model_name} is not loaded"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        if error := self.errors.get(request.id):
            await context.abort(*error, trailing_metadata=(("x-trailer", "from the model"),))
        if gate := self.gates.get(request.id):
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(request.id)
                raise
        await context.send_initial_metadata((("x-initial", "1"),))
        context.set_trailing_metadata((("x-trailer", "2"),))
        return _echo(request)

    async def stream(self, messages, context):
        """ModelStreamInfer over bytes: MLServer's shape, or Triton's where `is_triton`."""
        async for message in messages:
            request = kfs.ModelInferRequest.FromString(message)
            self.streamed.append(request.id)
            if request.model_name not in self.runtime.loaded:
                await context.abort(grpc.StatusCode.NOT_FOUND, "not loaded")
            if error := self.errors.get(request.id):
                await context.abort(*error, trailing_metadata=(("x-trailer", "from the model"),))
            if gate := self.gates.get(request.id):
                await gate.wait()
            answer = kfs.ModelInferResponse(model_name=request.model_name, id=request.id)
            body = answer.SerializeToString()
            yield bytes([0x12, len(body)]) + body if self.is_triton else body

    def service(self, details):
        """RPCs that are not KServe's come back as they are; `foreign` has what came in."""

        async def echo(message: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.foreign.append((details.method, message, metadata))
            return message

        return grpc.unary_unary_rpc_method_handler(echo)

    async def ModelMetadata(self, request, context):
        return kfs.ModelMetadataResponse(name=request.name, platform="fake")


def _echo(request: kfs.ModelInferRequest) -> kfs.ModelInferResponse:
    answer = kfs.ModelInferResponse(
        model_name=request.model_name,
        model_version=request.model_version,
        id=request.id,
        raw_output_contents=request.raw_input_contents,
    )
    for tensor in request.inputs:
        answer.outputs.add(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tensor.shape,
            contents=tensor.contents if tensor.HasField("contents") else None,
        )
    return answer


@asynccontextmanager
async def data_plane(runtime: FakeRuntime) -> AsyncIterator[DataPlane]:
    """The runtime's inference port; `runtime.address` is set to it."""
    server = grpc.aio.server()
    plane = DataPlane(runtime)
    kfs_grpc.add_GRPCInferenceServiceServicer_to_server(plane, server)
    stream = grpc.stream_stream_rpc_method_handler(plane.stream)
    streams = {"ModelStreamInfer": stream}
    service = "inference.GRPCInferenceService"
    server.add_registered_method_handlers(service, streams)
    server.add_generic_rpc_handlers((plane,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    runtime.address = f"127.0.0.1:{port}"
    try:
        yield plane
    finally:
        await server.stop(None)
