"""The door of an adapter: mmesh.ModelRuntime and AdapterEvents on a unix socket.

It reads requests, asks `Models`, and turns errors into status by one table. It knows no model
server.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from mesh.adapters import errors
from mesh.adapters.errors import AdapterError
from mesh.adapters.events import Events, Mailbox
from mesh.adapters.model_key import read_request, size_key
from mesh.adapters.models import Models
from mesh.core.ids import ModelId
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import model_runtime_pb2_grpc as spi_grpc
from mesh.wire.pb import wml_adapter_pb2 as events_pb
from mesh.wire.pb import wml_adapter_pb2_grpc as events_grpc

log = logging.getLogger(__name__)

# By which a node of ours tells its life, and an adapter of ours that it understood.
NODE_METADATA = "wml-node"
BEAT_METADATA = "wml-beat"
BEAT_S = 5.0
ADAPTER_METADATA = (("wml-adapter", "1"),)
STOP_S = 1.0
# The node runs as another user of the same group.
SOCKET_MODE = 0o660
CODES: dict[type[AdapterError], grpc.StatusCode] = {
    errors.InvalidModel: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnusableFiles: grpc.StatusCode.FAILED_PRECONDITION,
    errors.LoadFailed: grpc.StatusCode.INTERNAL,
    errors.UnloadFailed: grpc.StatusCode.INTERNAL,
    errors.LoadTimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.LoadStopped: grpc.StatusCode.ABORTED,
    errors.ModelNotLoaded: grpc.StatusCode.NOT_FOUND,
    errors.ServerGone: grpc.StatusCode.UNAVAILABLE,
}
# Where a method carries the model's id, by field numbers.
METHODS = {
    "inference.GRPCInferenceService/ModelInfer": (1,),
    "inference.GRPCInferenceService/ModelMetadata": (1,),
    "inference.GRPCInferenceService/ModelStreamInfer": (1,),
}

Context = grpc.aio.ServicerContext[Any, Any]
Servicer = TypeVar("Servicer")
Handler = Callable[[Servicer, Any, Context], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class RuntimeFacts:
    """What runtimeStatus says besides the status. `model_concurrency` 0: no limit."""

    capacity_bytes: int
    max_loading: int
    load_timeout_ms: int
    default_size_bytes: int
    version: str = ""
    model_concurrency: int = 0
    methods: dict[str, tuple[int, ...]] = field(default_factory=lambda: dict(METHODS))


def _with_status(handler: Handler[Servicer]) -> Handler[Servicer]:
    @wraps(handler)
    async def handle(servicer: Servicer, request: Any, context: Context) -> Any:
        try:
            return await handler(servicer, request, context)
        except AdapterError as error:
            await context.abort(CODES[type(error)], error.message)

    return handle


class ModelRuntime(spi_grpc.ModelRuntimeServicer):
    """The model runtime SPI over `models`."""

    def __init__(self, models: Models, facts: RuntimeFacts) -> None:
        self._models = models
        self._facts = facts

    @_with_status
    async def loadModel(  # noqa: N802 - the contract's name, as the next ones
        self, request: spi.LoadModelRequest, context: Context
    ) -> spi.LoadModelResponse:
        size_bytes = await self._models.load(read_request(request))
        return spi.LoadModelResponse(
            sizeInBytes=size_bytes, maxConcurrency=self._facts.model_concurrency
        )

    @_with_status
    async def unloadModel(  # noqa: N802
        self, request: spi.UnloadModelRequest, context: Context
    ) -> spi.UnloadModelResponse:
        await self._models.unload(ModelId(request.modelId))
        return spi.UnloadModelResponse()

    @_with_status
    async def predictModelSize(  # noqa: N802
        self, request: spi.PredictModelSizeRequest, context: Context
    ) -> spi.PredictModelSizeResponse:
        size_bytes = self._models.predicted_bytes(size_key(request))
        return spi.PredictModelSizeResponse(sizeInBytes=size_bytes)

    @_with_status
    async def modelSize(  # noqa: N802
        self, request: spi.ModelSizeRequest, context: Context
    ) -> spi.ModelSizeResponse:
        size_bytes = self._models.size_bytes(ModelId(request.modelId))
        return spi.ModelSizeResponse(sizeInBytes=size_bytes)

    @_with_status
    async def runtimeStatus(  # noqa: N802
        self, request: spi.RuntimeStatusRequest, context: Context
    ) -> spi.RuntimeStatusResponse:
        await context.send_initial_metadata(ADAPTER_METADATA)
        context.set_trailing_metadata(ADAPTER_METADATA)
        given = dict(context.invocation_metadata() or ())
        if not await self._models.settle(str(given.get(NODE_METADATA, ""))):
            return spi.RuntimeStatusResponse(status=spi.RuntimeStatusResponse.STARTING)
        return self._ready()

    def _ready(self) -> spi.RuntimeStatusResponse:
        facts = self._facts
        return spi.RuntimeStatusResponse(
            status=spi.RuntimeStatusResponse.READY,
            capacityInBytes=facts.capacity_bytes,
            maxLoadingConcurrency=facts.max_loading,
            modelLoadingTimeoutMs=facts.load_timeout_ms,
            defaultModelSizeInBytes=facts.default_size_bytes,
            runtimeVersion=facts.version,
            limitModelConcurrency=facts.model_concurrency > 0,
            methodInfos={
                name: spi.RuntimeStatusResponse.MethodInfo(idInjectionPath=path)
                for name, path in facts.methods.items()
            },
        )


class AdapterEvents(events_grpc.AdapterEventsServicer):
    """The events of this adapter, to each node that watches."""

    def __init__(self, models: Models, events: Events) -> None:
        self._models = models
        self._events = events

    async def Watch(  # noqa: N802
        self, request: events_pb.WatchRequest, context: Context
    ) -> AsyncIterator[events_pb.Event]:
        with self._events.watching() as mailbox:
            if not self._models.is_settled:  # it went between the node's question and this one
                self._events.tell_lost(mailbox)
            await context.send_initial_metadata((*ADAPTER_METADATA, (BEAT_METADATA, str(BEAT_S))))
            while (event := await _next(mailbox)) is not None:
                yield event


async def _next(mailbox: Mailbox) -> events_pb.Event | None:
    try:
        async with asyncio.timeout(BEAT_S):
            return await mailbox.take()
    except TimeoutError:
        return events_pb.Event(alive=events_pb.Alive())


@contextlib.asynccontextmanager
async def listening(
    socket: Path, runtime: ModelRuntime, events: AdapterEvents
) -> AsyncIterator[None]:
    """Serves on `socket` for as long as the context lasts; the file is gone afterwards."""
    _make_way(socket)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    spi_grpc.add_ModelRuntimeServicer_to_server(runtime, server)
    events_grpc.add_AdapterEventsServicer_to_server(events, server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    _share(socket)
    log.info("adapter listening", extra={"socket": str(socket)})
    try:
        yield
    finally:
        await server.stop(STOP_S)
        _make_way(socket)


def _make_way(socket: Path) -> None:
    """Removes the socket, also one that a killed adapter has left."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)


def _share(socket: Path) -> None:
    socket.chmod(SOCKET_MODE)
