"""The operations door: whether this node lives, whether it would serve, and its metrics.

Containers beside the node are told to end when it is: they ask `/prestop`, answered once the node
needs them no more.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from router.server import CannotListen

log = logging.getLogger(__name__)

# A container that alone is restarted asks too: a node that ends has been told by then, also where
# its machine has much to do. Who is let go too early takes the requests with it.
LEAVE_BEGINS_S = 10.0
LOOK_S = 0.1


class OperationsServer:
    """`why_not_ready` says in words what is missing, and nothing where the node is ready.

    `metrics` is Prometheus' text; `is_leaving` is whether the node is about to end.
    """

    def __init__(
        self,
        why_not_ready: Callable[[], str],
        metrics: Callable[[], Awaitable[bytes]],
        is_leaving: Callable[[], bool],
    ) -> None:
        self._why_not_ready = why_not_ready
        self._metrics = metrics
        self._is_leaving = is_leaving
        self._done = asyncio.Event()
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._scraped)
        application.router.add_get("/prestop", self._prestop)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self, address: str) -> int:
        """Listens, and says on which port. Raises CannotListen."""
        host, _, port = address.rpartition(":")
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, int(port)).start()
        except (OSError, ValueError, OverflowError) as error:
            raise CannotListen(address, error) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        self._done.set()
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._why_not_ready()
        return web.Response(text=(reason or "ok") + "\n", status=503 if reason else 200)

    async def _prestop(self, _: web.Request) -> web.Response:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_BEGINS_S):
                while not self._is_leaving():  # noqa: ASYNC110 - a signal sets it
                    await asyncio.sleep(LOOK_S)
        if self._is_leaving():
            await self._done.wait()
        else:
            log.info("a container beside this node ends alone")
        return web.Response(text="ok\n")

    async def _scraped(self, _: web.Request) -> web.Response:
        text = await self._metrics()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
