"""The door: the public gRPC server."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from mesh.agent.calls import OTHER
from mesh.core.errors import MeshError
from mesh.ops.clock import monotonic_s
from mesh.ops.metrics import Metrics
from mesh.wire.dataplane import NONE, Dataplane, is_foreign
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from router.about import NAME, VERSION
from router.address import bind_all
from router.naming import Naming, at_path, kserve
from router.port import Mesh
from router.reflection import Symbols
from router.refusal import Context, Failed, code_of, pass_error, refuse
from router.route import Router
from router.stream import Client, Streams

SERVICE = kfs.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
# Methods that a model answers, and what the field is called that names it.
ROUTED = {"ModelInfer": "model_name", "ModelMetadata": "name"}
STREAMED = {"ModelStreamInfer": "model_name"}

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What clients may ask of a server; answers are as large as models make them.

    `message_bytes`: one message; `metadata_bytes`: all headers of a call; `connections`: at once,
    further ones are closed; `calls_per_connection`: at once, further ones wait at the client;
    `connection_age_s`: after which a connection is renewed, its calls finishing on the old one;
    `body_s`: how long a body may take to arrive over HTTP.
    """

    message_bytes: int = 16 * 1024 * 1024
    metadata_bytes: int = 16 * 1024
    connections: int = 10_000
    calls_per_connection: int = 1_000
    connection_age_s: float | None = None
    body_s: float = 60.0


def server_options(limits: ServerLimits) -> tuple[tuple[str, int], ...]:
    """The options of a gRPC server within these limits."""
    age_s = limits.connection_age_s
    age = () if age_s is None else (("grpc.max_connection_age_ms", round(age_s * 1000)),)
    return (
        *age,
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # Clients may ask every second whether we live, also between calls.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 1_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.max_metadata_size", limits.metadata_bytes),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes),
        ("grpc.max_concurrent_streams", limits.calls_per_connection),
        ("grpc.max_allowed_incoming_connections", limits.connections),
    )


BY_METADATA = at_path(())


class Door(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    """The inference service: some methods are routed as bytes, the others answered here.

    `dataplane` names further RPCs that are routed, or lets all pass that metadata leads.
    """

    def __init__(
        self, router: Router, streams: Streams, mesh: Mesh, metrics: Metrics, dataplane: Dataplane
    ) -> None:
        self._ended = metrics.api.ended
        self._router = router
        self._streams = streams
        self._mesh = mesh
        self._in_flight = 0
        routed = {f"/{SERVICE}/{name}": kserve(field) for name, field in ROUTED.items()}
        routed |= {method: at_path(path) for method, path in dataplane.paths.items()}
        self._methods = {
            method: grpc.unary_unary_rpc_method_handler(
                self._routed(method, method.rpartition("/")[2], naming)
            )
            for method, naming in routed.items()
        }
        self._are_others_allowed = dataplane.are_others_allowed
        for name, field in STREAMED.items():
            handler = grpc.stream_stream_rpc_method_handler(self._streamed(name, field))
            self._methods[f"/{SERVICE}/{name}"] = handler
        for name, answer in self._own().items():
            self._methods[f"/{SERVICE}/{name}"] = _typed(name, answer)

    @property
    def in_flight(self) -> int:
        """How many routed requests have begun and not ended."""
        return self._in_flight

    def service(self, handler_call_details: Any) -> "Handler | None":
        method = handler_call_details.method
        handler = self._methods.get(method)
        if handler is None and self._are_others_allowed and is_foreign(method):
            return grpc.unary_unary_rpc_method_handler(self._routed(method, OTHER, BY_METADATA))
        return handler

    def _routed(
        self, method: str, name: str, naming: Naming
    ) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """`name`: what metrics call it."""
        unary = self._router.unary

        async def handle(message: bytes, context: Context) -> bytes:
            self._in_flight += 1
            began_s = monotonic_s()
            sizes: tuple[int, ...] = (len(message),)
            code = "UNKNOWN"
            try:
                metadata = context.invocation_metadata() or ()
                reply = await unary(method, naming, message, metadata, _deadline_s(context))
                code, sizes = "OK", (len(message), len(reply.message))
            except (MeshError, grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                code = code_of(error)
                await _end(error, context)
            finally:
                self._in_flight -= 1
                self._ended(name, code, monotonic_s() - began_s, *sizes)
            if reply.initial:
                await context.send_initial_metadata(reply.initial)
            if reply.trailing:
                context.set_trailing_metadata(reply.trailing)
            return reply.message

        return handle

    def _streamed(self, name: str, field: str) -> Callable[[Any, Context], Awaitable[None]]:
        method = f"/{SERVICE}/{name}"

        async def handle(requests: Any, context: Context) -> None:
            client = Client(
                requests,
                context.invocation_metadata() or (),
                _deadline_s(context),
                context.send_initial_metadata,
                context.write,
            )
            self._in_flight += 1
            began_s = monotonic_s()
            code = "UNKNOWN"
            try:
                trailing = await self._streams.relay(method, field, client)
                code = "OK"
            except (MeshError, grpc.aio.AioRpcError, asyncio.CancelledError) as error:
                code = code_of(error)
                await _end(error, context)
            finally:
                self._in_flight -= 1
                self._ended(name, code, monotonic_s() - began_s)
            if trailing:
                context.set_trailing_metadata(trailing)

        return handle

    def _own(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "ServerLive": lambda _: kfs.ServerLiveResponse(live=True),
            "ServerReady": lambda _: kfs.ServerReadyResponse(ready=self._mesh.is_ready()),
            "ServerMetadata": lambda _: kfs.ServerMetadataResponse(name=NAME, version=VERSION),
            "ModelReady": lambda request: kfs.ModelReadyResponse(
                ready=self._mesh.is_model_ready(request.name)
            ),
        }


def _typed(name: str, answer: Callable[[Any], Any]) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        try:
            return answer(request)
        except MeshError as error:
            await refuse(error, context)

    request_type = getattr(kfs, f"{name}Request")
    return grpc.unary_unary_rpc_method_handler(
        handle, request_type.FromString, getattr(kfs, f"{name}Response").SerializeToString
    )


async def _end(error: Failed, context: Context) -> NoReturn:
    """Ends a call by the status of what went wrong; a caller that left is told nothing."""
    match error:
        case MeshError():
            await refuse(error, context)
        case grpc.aio.AioRpcError():
            await pass_error(error, context)
    raise error


def _deadline_s(context: Context) -> float | None:
    """The caller's deadline in monotonic seconds, None where it has none."""
    left_s = context.time_remaining()
    return None if left_s is None else monotonic_s() + left_s


class CannotListen(Exception):
    """An address is taken, or none of this machine."""

    def __init__(self, address: str, cause: Exception) -> None:
        super().__init__(f"cannot listen on {address}: is it taken? ({cause})")


def listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    """Binds a server to an address; the port. Raises CannotListen."""
    bind = server.add_insecure_port
    if credentials is not None:
        bind = partial(server.add_secure_port, server_credentials=credentials)
    try:
        return bind_all(bind, address)
    except (RuntimeError, OSError) as error:
        raise CannotListen(address, error) from error


class PublicServer:
    """Inference, health and reflection on one address."""

    def __init__(
        self,
        router: Router,
        streams: Streams,
        mesh: Mesh,
        limits: ServerLimits,
        metrics: Metrics,
        dataplane: Dataplane = NONE,
    ) -> None:
        self.door = Door(router, streams, mesh, metrics, dataplane)
        self._server = grpc.aio.server(options=server_options(limits))
        self._server.add_generic_rpc_handlers((self.door,))
        self._health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        # The last one is for clients that show the details of an error.
        files = (kfs, health_pb2, reflection_pb2, error_details_pb2)
        symbols: Any = Symbols(*(file.DESCRIPTOR for file in files))
        reflection.enable_server_reflection(names, self._server, symbols)

    async def start(self, address: str) -> int:
        """Listens, and says on which port. Raises CannotListen."""
        port = listen(self._server, address)
        await self._server.start()
        return port

    async def tell_health(self, *, is_ready: bool) -> None:
        """What grpc.health.v1 answers for the server and for the inference service."""
        statuses = health_pb2.HealthCheckResponse
        status = statuses.SERVING if is_ready else statuses.NOT_SERVING
        for name in ("", SERVICE):
            await self._health.set(name, status)

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, and lets those that have begun finish within `grace_s`."""
        await self._server.stop(grace_s)
