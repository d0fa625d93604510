"""The operations door: whether this node lives, and whether it would serve. For probes."""

from collections.abc import Callable

from aiohttp import web

from router.server import CannotListen


class OperationsServer:
    """`why_not_ready` says in words what is missing, and nothing where the node is ready."""

    def __init__(self, why_not_ready: Callable[[], str]) -> None:
        self._why_not_ready = why_not_ready
        application = web.Application()
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
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
