"""Who gets in at the internal door: whoever shows a certificate that is made out to a node.

gRPC has checked who signed it, which is not enough: an authority may sign for others too. The names
are looked at before each call: nothing could be kept for a connection but the address of who calls,
which may be somebody else's by the next call.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from inspect import isasyncgenfunction
from typing import Any, TypeAlias

import grpc
import grpc.aio

from mesh.peers.tls import NODE_NAME
from router.refusal import Context

# What gRPC knows a caller by whose certificate has such names. They are of all kinds, but one that
# is no DNS name cannot look like ours: a URI has a scheme, an e-mail address an @.
NAMES = "x509_subject_alternative_name"
OURS = NODE_NAME.encode()
NOT_A_NODE = f"the certificate is not made out to {NODE_NAME}"

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


async def check(context: Context) -> None:
    """Ends the call of who is not a node; under a microsecond for who is."""
    if context.peer_identity_key() != NAMES or OURS not in (context.peer_identities() or ()):
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, NOT_A_NODE)


class GuardedServer:
    """A server as far as services add themselves to it: all that they add is for nodes alone."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers([_Guarded(handler) for handler in handlers])

    def add_registered_method_handlers(self, service: str, methods: Mapping[str, Handler]) -> None:
        guarded = {name: _guarded(handler) for name, handler in methods.items()}
        self._server.add_registered_method_handlers(service, guarded)


class _Guarded(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def service(self, handler_call_details: Any) -> "Handler | None":
        handler: Handler | None = self._inner.service(handler_call_details)
        return None if handler is None else _guarded(handler)


def _guarded(handler: Handler) -> Handler:
    codec = handler.request_deserializer, handler.response_serializer
    match handler.request_streaming, handler.response_streaming:
        case False, False:
            return grpc.unary_unary_rpc_method_handler(_checked(handler.unary_unary), *codec)
        case False, True:
            return grpc.unary_stream_rpc_method_handler(_checked(handler.unary_stream), *codec)
        case True, False:
            return grpc.stream_unary_rpc_method_handler(_checked(handler.stream_unary), *codec)
    return grpc.stream_stream_rpc_method_handler(_checked(handler.stream_stream), *codec)


def _checked(behaviour: Any) -> Any:
    """The same behaviour, after the check."""

    async def answered(request: Any, context: Context) -> Any:
        await check(context)
        return await behaviour(request, context)

    async def told(request: Any, context: Context) -> AsyncIterator[Any]:
        await check(context)
        async for message in behaviour(request, context):
            yield message

    return told if isasyncgenfunction(behaviour) else answered
