"""A model server on loopback that speaks the SPI by a script, for tests of whoever calls it.

It does what `answers` says and no more: a method that is not in it is UNIMPLEMENTED, as it is at
servers that are not ours. It holds no models and counts no memory.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import wml_adapter_pb2 as events_pb

# By method: the service that has it, and the type of its request.
METHODS: dict[str, tuple[str, Any]] = {
    "runtimeStatus": ("mmesh.ModelRuntime", spi.RuntimeStatusRequest),
    "loadModel": ("mmesh.ModelRuntime", spi.LoadModelRequest),
    "unloadModel": ("mmesh.ModelRuntime", spi.UnloadModelRequest),
    "predictModelSize": ("mmesh.ModelRuntime", spi.PredictModelSizeRequest),
    "modelSize": ("mmesh.ModelRuntime", spi.ModelSizeRequest),
    "ServerLive": ("inference.GRPCInferenceService", kfs.ServerLiveRequest),
    "ModelReady": ("inference.GRPCInferenceService", kfs.ModelReadyRequest),
}
WATCH = events_pb.DESCRIPTOR.services_by_name["AdapterEvents"].full_name


@dataclass
class RuntimeServer:
    """`answers` by method: a message, a status to fail with, or seconds to be silent for.

    `is_ours`: whether it says that it is an adapter of ours, and has events; what is put into
    `events` is sent. `asked` has the requests by method, `metadata` that of the last call.
    """

    answers: dict[str, Any]
    is_ours: bool = True
    events: asyncio.Queue[events_pb.Event] = field(default_factory=asyncio.Queue)
    asked: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    beat_s: float = 0.0
    target: str = ""
    server: grpc.aio.Server | None = None

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop(None)

    def handlers(self) -> list[grpc.GenericRpcHandler]:  # type: ignore[type-arg]
        by_service: dict[str, dict[str, Any]] = {}
        for method in self.answers:
            service, request = METHODS[method]
            by_service.setdefault(service, {})[method] = grpc.unary_unary_rpc_method_handler(
                self._answering(method),
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
        if self.is_ours:
            by_service[WATCH] = {
                "Watch": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=events_pb.WatchRequest.FromString,
                    response_serializer=events_pb.Event.SerializeToString,
                )
            }
        return [
            grpc.method_handlers_generic_handler(service, methods)
            for service, methods in by_service.items()
        ]

    def _answering(self, method: str) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            self.asked[method] = request
            self.metadata = dict(context.invocation_metadata() or ())
            if self.is_ours and method == "runtimeStatus":
                await context.send_initial_metadata((("wml-adapter", "1"),))
            given = self.answers[method]
            if isinstance(given, float):
                await asyncio.sleep(given)
            if isinstance(given, grpc.StatusCode):
                await context.abort(given, f"the words of {method}")
            return given

        return answer

    async def _watch(self, _: Any, context: Any) -> AsyncIterator[events_pb.Event]:
        if self.beat_s:
            await context.send_initial_metadata((("wml-beat", str(self.beat_s)),))
        while True:
            yield await self.events.get()


@asynccontextmanager
async def runtime_server(
    *, is_ours: bool = True, target: str = "127.0.0.1:0", **answers: Any
) -> AsyncIterator[RuntimeServer]:
    """A server by this script, on a free port of loopback unless `target` names one."""
    scripted = RuntimeServer(answers, is_ours)
    scripted.server = grpc.aio.server()
    scripted.server.add_generic_rpc_handlers(tuple(scripted.handlers()))
    scripted.target = f"127.0.0.1:{scripted.server.add_insecure_port(target)}"
    await scripted.server.start()
    try:
        yield scripted
    finally:
        await scripted.stop()
