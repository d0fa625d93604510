"""The operations door: whether this node lives, whether it would serve, and its metrics."""

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from router.server import CannotListen


class OperationsServer:
    """`why_not_ready` says in words what is missing, and nothing where the node is ready.

    `metrics` is Prometheus' text.
    """

    def __init__(
        self, why_not_ready: Callable[[], str], metrics: Callable[[], Awaitable[bytes]]
    ) -> None:
        self._why_not_ready = why_not_ready
        self._metrics = metrics
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._scraped)
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
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self._why_not_ready()
        return web.Response(text=(reason or "ok") + "\n", status=503 if reason else 200)

    async def _scraped(self, _: web.Request) -> web.Response:
        text = await self._metrics()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
