"""MLServer as a ModelServer: its model repository calls, and its coming and going.

MLServer goes on with a load whose caller has left, and what it does then is no less loaded. So a
load is never cancelled at the server: a caller that leaves leaves the call behind, and `unload`
waits for its end before it unloads. Whether the server is there is read off the channel's state.
"""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mesh.adapters.errors import LoadFailed, ServerGone, UnloadFailed
from mesh.adapters.mlserver_layout import IMPLEMENTATIONS, Layout
from mesh.adapters.port import LoadRequest
from mesh.core.ids import ModelId
from mesh.ops.tasks import Tasks
from mesh.storage.pull import Pulled
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_repository_pb2 as pb
from mesh.wire.pb import model_repository_pb2_grpc as repository_grpc

log = logging.getLogger(__name__)

NAME = "MLServer"
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # On this host: a server that is back is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    # An idle channel that closes by itself would look like a server that has gone.
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
)
READY_TIMEOUT_S = 1.0
# For what needs no more than a look; a server that is busy with a load answers late.
LOOK_TIMEOUT_S = 30.0
# How long an abandoned load may go on before the server is told to drop it.
SETTLE_S = 30.0
GONE_S = 5.0
GONE_POLL_S = 0.05
# Gone, or as good as gone.
AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
# What the index calls a model of which the server knows the folder alone.
NOT_HELD = frozenset({"UNAVAILABLE", "State.UNAVAILABLE"})


class MLServer:
    """MLServer at `target`, serving what lies below `root`/`subdir`."""

    def __init__(
        self,
        target: str,
        root: Path,
        *,
        subdir: str = "_mlserver_models",
        implementations: Mapping[str, str] = IMPLEMENTATIONS,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._layout = Layout(root, subdir, implementations)
        self._layout.make()
        self._settle_s = settle_s
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._inference: Any = kfs_grpc.GRPCInferenceServiceStub(self._channel)
        self._repository: Any = repository_grpc.ModelRepositoryServiceStub(self._channel)
        self._calls = Tasks()
        # Load calls whose caller has left; `unload` takes them out.
        self._abandoned: dict[ModelId, asyncio.Task[grpc.aio.AioRpcError | None]] = {}

    def lay_out(self, request: LoadRequest, pulled: Pulled, folder: Path) -> None:
        self._layout.lay_out(request, pulled, folder)

    def remove(self, model: ModelId) -> None:
        self._layout.remove(model)

    def laid_out(self) -> frozenset[ModelId]:
        return self._layout.laid_out()

    async def load(self, model: ModelId) -> None:
        call = self._calls.spawn(self._load(model), f"mlserver-load-{model}")
        try:
            error = await asyncio.shield(call)
        except asyncio.CancelledError:
            self._abandoned[model] = call
            raise
        if error is not None:
            raise _load_error(error)

    async def unload(self, model: ModelId) -> None:
        goes_on = await self._goes_on(model)
        problem = await self._unload(model)
        if problem or goes_on:
            await self._until_gone(model, problem or "a load that was given up goes on")

    async def has(self, model: ModelId) -> bool:
        try:
            answer = await self._inference.ModelReady(
                kfs.ModelReadyRequest(name=model), timeout=LOOK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise ServerGone(NAME) from error
            return False  # of a model that it does not know MLServer says UNKNOWN
        return bool(answer.ready)

    async def index(self) -> frozenset[ModelId]:
        try:
            answer = await self._repository.RepositoryIndex(
                pb.RepositoryIndexRequest(), timeout=LOOK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise ServerGone(NAME) from error
        return frozenset(ModelId(m.name) for m in answer.models if m.state not in NOT_HELD)

    async def is_ready(self) -> bool:
        """Asks whether it lives: ready would wait for every model, and a broken one never is."""
        try:
            answer = await self._inference.ServerLive(
                kfs.ServerLiveRequest(), timeout=READY_TIMEOUT_S
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.live)

    @property
    def is_connected(self) -> bool:
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def until_lost(self) -> None:
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)
        await self._channel.wait_for_state_change(state)
        log.warning("MLServer has gone")

    async def close(self) -> None:
        await self._calls.close()
        await self._channel.close(None)

    async def _load(self, model: ModelId) -> grpc.aio.AioRpcError | None:
        try:
            request = pb.RepositoryModelLoadRequest(model_name=model)
            await self._repository.RepositoryModelLoad(request)
        except grpc.aio.AioRpcError as error:
            return error
        return None

    async def _unload(self, model: ModelId) -> str:
        """What MLServer says against it, empty if nothing."""
        try:
            request = pb.RepositoryModelUnloadRequest(model_name=model)
            await self._repository.RepositoryModelUnload(request, timeout=LOOK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                raise ServerGone(NAME) from error
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                return error.details() or error.code().name
        return ""

    async def _goes_on(self, model: ModelId) -> bool:
        """Waits for the end of a load that was cancelled; gives it up after a bound."""
        call = self._abandoned.pop(model, None)
        if call is None:
            return False
        _, going = await asyncio.wait([call], timeout=self._settle_s)
        if going:
            log.warning("MLServer does not end a load", extra={"model": model})
            call.cancel()
        return bool(going)

    async def _until_gone(self, model: ModelId, cause: str) -> None:
        try:
            async with asyncio.timeout(GONE_S):
                while model in await self.index():
                    await asyncio.sleep(GONE_POLL_S)
                    await self._unload(model)
        except TimeoutError as error:
            raise UnloadFailed(NAME, cause) from error


def _load_error(error: grpc.aio.AioRpcError) -> LoadFailed | ServerGone:
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return ServerGone(NAME)
    if error.code() is grpc.StatusCode.NOT_FOUND:
        cause = "it does not accept its model-settings.json; is its implementation installed there?"
        return LoadFailed(NAME, cause)
    # Often a bare number or key out of a library: no sentence for the one who made the Predictor.
    hint = "(the file may be damaged or of another type; MLServer's log says more)"
    return LoadFailed(NAME, f"{error.details() or 'it gave no reason'} {hint}")
