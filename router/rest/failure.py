"""How a request over HTTP that fails ends: an error becomes a status here, and nowhere else."""

import json

import grpc.aio
from aiohttp import web

from mesh.core.errors import MeshError
from mesh.wire import status_codes
from router.refusal import REQUEST_ID, tell_failed, tell_refused

JSON = "application/json"
# What helps against 429 and 503.
RETRY_AFTER_S = 1
BUSY = (429, 503)


class HttpProblem(Exception):
    """What is wrong with a request as HTTP, before it is one to a model."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def refused(error: MeshError, request_id: str) -> web.Response:
    """The answer to a request that we refuse, in the words that gRPC has."""
    tell_refused(error, request_id)
    return failure(status_codes.HTTP[status_codes.code(error)], error.message, request_id)


def failed(error: grpc.aio.AioRpcError, request_id: str) -> web.Response:
    """The answer to a request that the runtime refused, in its words."""
    tell_failed(error, request_id)
    return failure(status_codes.HTTP[error.code()], error.details() or "", request_id)


def failure(status: int, message: str, request_id: str) -> web.Response:
    """`{"error": message}`."""
    headers = {REQUEST_ID: request_id}
    if status in BUSY:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return web.Response(
        text=json.dumps({"error": message}), status=status, content_type=JSON, headers=headers
    )
