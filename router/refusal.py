"""How a call that fails ends: an error becomes a gRPC status here, and nowhere else; `router.rest`
has the same for HTTP.

Every failure carries a request id, the caller's own (`x-request-id`) or one made for it, in the
trailing metadata and in one line of the log.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from mesh.core.errors import MeshError
from mesh.wire import status_codes
from router.hop import OF_NODES

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID = 128

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Failed: TypeAlias = MeshError | grpc.aio.AioRpcError | asyncio.CancelledError
Service = TypeVar("Service")
Request = TypeVar("Request")
Answer = TypeVar("Answer")


def refusing(
    call: Callable[[Service, Request, Context], Awaitable[Answer]],
) -> Callable[[Service, Request, Context], Awaitable[Answer]]:
    """A method of a service that raises MeshError, as one that ends its call by a status."""

    @wraps(call)
    async def answer(service: Service, request: Request, context: Context) -> Answer:
        try:
            return await call(service, request, context)
        except MeshError as error:
            await refuse(error, context)
            raise  # never reached: refusing ends the call

    return answer


async def refuse(
    error: MeshError, context: Context, further: Iterable[tuple[str, str]] = ()
) -> None:
    """Ends a call by the status of an error, with its ErrorInfo and `further` trailing metadata."""
    request_id = id_in(context.invocation_metadata() or ())
    tell_refused(error, request_id)
    trailing: Any = (*status_codes.details(error), (REQUEST_ID, request_id), *further)
    await context.abort(status_codes.code(error), error.message, trailing)


async def pass_error(error: grpc.aio.AioRpcError, context: Context) -> None:
    """Ends a call as the upstream ended it: code, message and trailing metadata, but for what nodes
    say to each other there.
    """
    request_id = id_in(context.invocation_metadata() or ())
    tell_failed(error, request_id)
    came: Any = error.trailing_metadata() or ()
    given: Any = tuple((key, value) for key, value in came if not key.startswith(OF_NODES))
    is_there = any(key == REQUEST_ID for key, _ in given)
    trailing: Any = given if is_there else (*given, (REQUEST_ID, request_id))
    await context.abort(error.code(), error.details() or "", trailing)


def tell_refused(error: MeshError, request_id: str) -> None:
    """The line of the log about a call that we refuse."""
    fields = {"request_id": request_id, "code": code_of(error), "cause": error.message}
    log.info("request refused", extra=fields)


def tell_failed(error: grpc.aio.AioRpcError, request_id: str) -> None:
    """The line of the log about a call that the runtime refuses."""
    fields = {"request_id": request_id, "code": code_of(error)}
    log.info("request failed at the runtime", extra=fields)


def code_of(error: Failed) -> str:
    """The name of the status by which a call ends."""
    match error:
        case MeshError():
            return status_codes.code(error).name
        case grpc.aio.AioRpcError():
            return error.code().name
    return "CANCELLED"


def id_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's request id, or one that is made."""
    for key, value in metadata:
        if key == REQUEST_ID and value:
            return str(value)[:MAX_REQUEST_ID]
    return secrets.token_hex(8)
