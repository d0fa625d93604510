"""The runtime port over gRPC: SPI calls on one channel, life on both it and the data channel."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId, NodeId, StorageKey
from mesh.core.records import BackingModel
from mesh.ops.clock import monotonic_s
from mesh.ops.tasks import Tasks
from mesh.runtime.liveness import SILENCE_S, Liveness, Silence
from mesh.runtime.port import KeyChanged, LoadedModel, Progress, RuntimeEvent, RuntimeInfo
from mesh.wire.model_key import encode_model_key
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import model_runtime_pb2_grpc as spi_grpc
from mesh.wire.pb import wml_adapter_pb2 as adapter
from mesh.wire.pb import wml_adapter_pb2_grpc as adapter_grpc

log = logging.getLogger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Beside the node: a runtime that is back is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)
CALL_TIMEOUT_S = 5.0
# Longer than the channel waits before it tries again.
CONNECT_S = 0.3
EVENTS_KEPT = 1000
# What an adapter of ours says of itself: it keeps what it loaded for this life of the node.
ADAPTER_METADATA = "wml-adapter"
# How often it says on its stream of events that it lives, in seconds; and after how many times that
# it has not said so it counts as lost.
BEAT_METADATA = "wml-beat"
MISSED_BEATS = 4
UNLOAD_TIMEOUT_S = 60.0
NOTHING_HELD = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.INVALID_ARGUMENT)
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
LOST_STATES = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class GrpcRuntime:
    """`spi_target` serves mmesh.ModelRuntime, `data_target` inference; both are gRPC targets.

    `node` tells an adapter of ours which life of the node asks: it keeps what it loaded for it.
    `silence_s`: after so long without an answer a runtime counts as lost; see `Liveness`.
    """

    def __init__(
        self, spi_target: str, data_target: str, node: NodeId, *, silence_s: float = SILENCE_S
    ) -> None:
        self._spi_channel = grpc.aio.insecure_channel(spi_target, options=CHANNEL_OPTIONS)
        self._data_channel = grpc.aio.insecure_channel(data_target, options=CHANNEL_OPTIONS)
        self._spi: Any = spi_grpc.ModelRuntimeStub(self._spi_channel)
        self._events: Any = adapter_grpc.AdapterEventsStub(self._spi_channel)
        self._server: Any = kfs_grpc.GRPCInferenceServiceStub(self._data_channel)
        self._node = node
        self._liveness = Liveness(self._ask_server, silence_s)
        # What a runtime holds that was silent is given up here, so it is to begin anew as well.
        self._silences = 0
        self._keeps_models = False
        self._is_server_lost = False
        self._address = data_target

    @property
    def address(self) -> str:
        return self._address

    async def status(self) -> RuntimeInfo | None:
        request = spi.RuntimeStatusRequest()
        life = f"{self._node}/{self._silences}" if self._silences else self._node
        metadata = (("wml-node", life),)
        call = self._spi.runtimeStatus(request, timeout=CALL_TIMEOUT_S, metadata=metadata)
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error
        if answer.status != spi.RuntimeStatusResponse.READY or not await self._is_connected():
            return None
        self._keeps_models = any(
            key == ADAPTER_METADATA for key, _ in await call.initial_metadata()
        )
        self._is_server_lost = False
        return RuntimeInfo(
            capacity_bytes=answer.capacityInBytes,
            max_loading=answer.maxLoadingConcurrency,
            load_timeout_s=answer.modelLoadingTimeoutMs / 1000,
            default_size_bytes=answer.defaultModelSizeInBytes,
            version=answer.runtimeVersion,
            methods={name: tuple(m.idInjectionPath) for name, m in answer.methodInfos.items()},
            is_any_method_allowed=answer.allowAnyMethod,
            is_concurrency_limited=answer.limitModelConcurrency,
        )

    async def load(self, model: BackingModel, *, timeout_s: float) -> LoadedModel:
        source = model.source
        request = spi.LoadModelRequest(
            modelId=model.id,
            modelType=str(source.type),
            modelPath=source.path,
            modelKey=encode_model_key(source),
        )
        try:
            with self._liveness.loading():
                answer = await self._spi.loadModel(request, timeout=timeout_s)
            size_bytes, sizing_s = answer.sizeInBytes, None
            if not size_bytes:
                began_s = monotonic_s()
                size_bytes = await self._size_bytes(model.id)
                sizing_s = monotonic_s() - began_s if size_bytes else None
        except grpc.aio.AioRpcError as error:
            raise _load_error(error, model.id, timeout_s) from error
        return LoadedModel(size_bytes, answer.maxConcurrency, sizing_s)

    async def unload(self, model: ModelId) -> None:
        try:
            request = spi.UnloadModelRequest(modelId=model)
            await self._spi.unloadModel(request, timeout=UNLOAD_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(error) from error

    async def predict_size_bytes(self, model: BackingModel) -> int:
        source = model.source
        request = spi.PredictModelSizeRequest(
            modelId=model.id,
            modelType=str(source.type),
            modelPath=source.path,
            modelKey=encode_model_key(source),
        )
        try:
            answer = await self._spi.predictModelSize(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return 0
            raise _unavailable(error) from error
        return int(answer.sizeInBytes)

    async def has(self, model: ModelId) -> bool:
        request = kfs.ModelReadyRequest(name=model)
        try:
            answer = await self._server.ModelReady(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in NO_ANSWER:
                raise _unavailable(error) from error
            return False
        return bool(answer.ready)

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        events: asyncio.Queue[RuntimeEvent | None] = asyncio.Queue(EVENTS_KEPT)
        tasks = Tasks()
        tasks.spawn(self._until_lost(self._data_channel, events), "data-channel")
        tasks.spawn(self._adapter_events(events), "adapter-events")
        tasks.spawn(self._until_silent(events), "liveness")
        try:
            while (event := await events.get()) is not None:
                yield event
        finally:
            await tasks.close()

    def is_serving(self) -> bool:
        is_connected = self._data_channel.get_state() is grpc.ChannelConnectivity.READY
        return self._keeps_models and is_connected and not self._is_server_lost

    async def close(self) -> None:
        await self._spi_channel.close(None)
        await self._data_channel.close(None)

    async def _is_connected(self) -> bool:
        """The adapter may reach the runtime before our own channel tries again: until that does,
        it would count as lost as soon as it is ready."""
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._data_channel.channel_ready()
        except TimeoutError:
            return False
        return True

    async def _until_silent(self, events: asyncio.Queue[RuntimeEvent | None]) -> None:
        await self._liveness.until_silent()
        log.warning("the runtime does not answer", extra={"address": self._address})
        self._is_server_lost = True
        self._silences += 1
        await events.put(None)

    async def _ask_server(self, timeout_s: float) -> None:
        """Whatever it answers, it answers; one that cannot be reached is noticed elsewhere."""
        try:
            await self._server.ServerLive(kfs.ServerLiveRequest(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise Silence from error

    async def _size_bytes(self, model: ModelId) -> int:
        """0 where the runtime does not say: what was estimated stands then."""
        try:
            request = spi.ModelSizeRequest(modelId=model)
            answer = await self._spi.modelSize(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return 0
            raise
        return int(answer.sizeInBytes)

    async def _adapter_events(self, events: asyncio.Queue[RuntimeEvent | None]) -> None:
        try:
            async for event in _beating(self._events.Watch(adapter.WatchRequest())):
                if event.WhichOneof("event") == "runtime_lost":
                    self._is_server_lost = True
                    break
                if (read := _read_event(event)) is not None:
                    await events.put(read)
        except TimeoutError:
            log.warning("the adapter does not answer")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                await self._until_lost(self._spi_channel, events)
        await events.put(None)

    async def _until_lost(
        self, channel: grpc.aio.Channel, events: asyncio.Queue[RuntimeEvent | None]
    ) -> None:
        state = channel.get_state(try_to_connect=True)
        was_ready = False
        while state not in LOST_STATES and not (was_ready and _is_gone(state)):
            was_ready = was_ready or state is grpc.ChannelConnectivity.READY
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
        await events.put(None)


async def _beating(watch: Any) -> AsyncIterator[adapter.Event]:
    """The events of an adapter. Raises TimeoutError where it misses its own beats, if it has any,
    and AioRpcError."""
    said = dict(await watch.initial_metadata() or ())
    silence_s = float(said[BEAT_METADATA]) * MISSED_BEATS if BEAT_METADATA in said else None
    stream = aiter(watch)
    try:
        while True:
            async with asyncio.timeout(silence_s):
                event = await anext(stream, None)
            if event is None:
                return
            yield event
    finally:
        watch.cancel()


def _is_gone(state: grpc.ChannelConnectivity) -> bool:
    return state is not grpc.ChannelConnectivity.READY


def _read_event(event: adapter.Event) -> RuntimeEvent | None:
    match event.WhichOneof("event"):
        case "storage_key_changed":
            return KeyChanged(StorageKey(event.storage_key_changed.key))
        case "load_progress":
            progress = event.load_progress
            model = ModelId(progress.model_id)
            return Progress(model, progress.stage, progress.done_bytes, progress.total_bytes)
        case _:
            return None


def _unavailable(error: grpc.aio.AioRpcError) -> Unavailable:
    return Unavailable(f"the runtime does not answer: {error.details()}")


def _load_error(
    error: grpc.aio.AioRpcError, model: ModelId, timeout_s: float
) -> ModelLoadFailed | Unavailable:
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unavailable(error)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        cause = f"it took longer than {timeout_s:.0f} s"
        return ModelLoadFailed(cause, model=model, holds_memory=True)
    cause = error.details() or code.name
    return ModelLoadFailed(cause, model=model, holds_memory=code not in NOTHING_HELD)
