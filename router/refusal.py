"""How a call that fails ends: an error becomes a status here, and nowhere else.

Every failure carries a request id, the caller's own (`x-request-id`) or one made for it, in the
trailing metadata and in one line of the log.
"""

import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from mesh.core.errors import MeshError
from mesh.wire import status_codes

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID = 128

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
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


async def refuse(error: MeshError, context: Context) -> None:
    """Ends a call by the status of an error, with its ErrorInfo."""
    request_id = _request_id(context)
    code = status_codes.code(error)
    fields = {"request_id": request_id, "code": code.name, "cause": error.message}
    log.info("request refused", extra=fields)
    trailing: Any = (*status_codes.details(error), (REQUEST_ID, request_id))
    await context.abort(code, error.message, trailing)


async def pass_error(error: grpc.aio.AioRpcError, context: Context) -> None:
    """Ends a call as the upstream ended it: code, message and trailing metadata."""
    request_id = _request_id(context)
    log.info(
        "request failed at the runtime",
        extra={"request_id": request_id, "code": error.code().name},
    )
    given: Any = tuple(error.trailing_metadata() or ())
    is_there = any(key == REQUEST_ID for key, _ in given)
    trailing: Any = given if is_there else (*given, (REQUEST_ID, request_id))
    await context.abort(error.code(), error.details() or "", trailing)


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and value:
            return str(value)[:MAX_REQUEST_ID]
    return secrets.token_hex(8)
