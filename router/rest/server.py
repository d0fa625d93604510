"""The REST door: an HTTP server and its limits."""

import asyncio
import logging
from typing import Any

import grpc.aio
from aiohttp import web

from mesh.core.errors import MeshError
from mesh.ops.metrics import Metrics
from router.port import Mesh
from router.refusal import REQUEST_ID, id_in
from router.rest.calls import Calls
from router.rest.failure import HttpProblem, failed, failure, refused
from router.rest.paths import call_of
from router.rest.request import check_headers, metadata_of
from router.route import Router
from router.server import CannotListen, ServerLimits

log = logging.getLogger(__name__)

# An idle connection is closed then, and one whose headers do not come; proxies' idle ones are
# closed by them before.
IDLE_S = 75.0
MOST_LINE_BYTES = 8 * 1024


class RestServer:
    """V2 over HTTP on one address; its calls go through the same router as those of gRPC.

    `grace_s`: how long what is in flight may take when it stops.
    """

    def __init__(
        self, router: Router, mesh: Mesh, metrics: Metrics, limits: ServerLimits, grace_s: float
    ) -> None:
        self._calls = Calls(router, mesh, metrics, limits)
        self._limits = limits
        self._grace_s = grace_s
        self._is_leaving = False
        self._runner: web.ServerRunner | None = None

    @property
    def in_flight(self) -> int:
        """How many requests to models have begun and not ended."""
        return self._calls.in_flight

    async def start(self, address: str) -> int:
        """Listens, and says on which port. Raises CannotListen."""
        server = _Server(self._answered, self._limits)
        self._runner = web.ServerRunner(server, shutdown_timeout=self._grace_s)
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        try:
            await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        except (OSError, ValueError, OverflowError) as error:
            raise CannotListen(address, error) from error
        return int(self._runner.addresses[0][1])

    async def leave(self) -> None:
        """From now on connections are refused, and each that there is ends with its next answer."""
        self._is_leaving = True
        if self._runner is not None:
            for site in self._runner.sites:
                await site.stop()

    async def stop(self) -> None:
        """Takes no new calls, and lets those that have begun finish for a while."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._calls.close()

    async def _answered(self, request: web.BaseRequest) -> web.Response:
        request_id = id_in(metadata_of(request))
        try:
            check_headers(request, self._limits.metadata_bytes)
            answer = await call_of(self._calls, request)(request)
            answer.headers[REQUEST_ID] = request_id
        except HttpProblem as error:
            answer = failure(error.status, error.message, request_id)
        except MeshError as error:
            answer = refused(error, request_id)
        except grpc.aio.AioRpcError as error:
            answer = failed(error, request_id)
        if self._is_leaving:
            answer.force_close()
        return answer


class _Server(web.Server):
    """aiohttp's server with a limit of connections; beyond it they are closed at once."""

    def __init__(self, answered: Any, limits: ServerLimits) -> None:
        super().__init__(answered, handler_cancellation=True)
        self._most = limits.connections
        line_bytes = min(MOST_LINE_BYTES, limits.metadata_bytes)
        self._options: dict[str, Any] = {
            "access_log": None,
            # By aiohttp it would be on the loop, and without an end.
            "auto_decompress": False,
            "keepalive_timeout": IDLE_S,
            "max_line_size": line_bytes,
            "max_field_size": line_bytes,
        }

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self.connections) > self._most:
            transport.abort()

    def __call__(self) -> "_Connection":
        return _Connection(self, loop=asyncio.get_running_loop(), **self._options)


class _Connection(web.RequestHandler):
    """aiohttp's connection, whose own failures are in our form."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.Response:
        """`status` 500 is a fault of ours; others are what came and is no HTTP."""
        if status == 500:
            log.error("request failed", exc_info=exc)
            message = "internal error"
        answer = failure(status, message or "", id_in(()))
        answer.force_close()
        return answer
