"""The controller's doors: whether it lives, whether it is ready, and its metrics."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Measures:
    """Declared here, all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "wml_controller_kube_requests",
            "Calls of the API server",
            ["verb"],
            registry=self.registry,
        )

    def called(self, verb: str) -> None:
        self.calls.labels(verb).inc()

    def show(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge that is asked at each scrape."""
        gauge = Gauge(f"wml_controller_{name}", meaning, registry=self.registry)
        gauge.set_function(value)

    def show_each(self, name: str, meaning: str, values: Callable[[], Mapping[str, float]]) -> None:
        """A gauge with one value a namespace, asked at each scrape."""
        self.registry.register(_ByNamespace(f"wml_controller_{name}", meaning, values))


class _ByNamespace(Collector):
    def __init__(self, name: str, meaning: str, values: Callable[[], Mapping[str, float]]) -> None:
        self._name = name
        self._meaning = meaning
        self._values = values

    def collect(self) -> Iterator[Metric]:
        gauge = GaugeMetricFamily(self._name, self._meaning, labels=["namespace"])
        for namespace, value in self._values().items():
            gauge.add_metric([namespace], value)
        yield gauge


class Doors:
    """`why_not_ready` says in words what is missing, and nothing where it is ready."""

    def __init__(self, measures: Measures, why_not_ready: Callable[[], str]) -> None:
        self._measures = measures
        self._why_not_ready = why_not_ready
        self._stack = AsyncExitStack()

    async def open(self, health: str, metrics: str) -> None:
        """Listens on two addresses, HOST:PORT. Raises OSError."""
        await self._serve(
            health, {"/healthz": self._live, "/livez": self._live, "/readyz": self._ready}
        )
        await self._serve(metrics, {"/metrics": self._scraped})

    async def close(self) -> None:
        await self._stack.aclose()

    async def _serve(self, address: str, routes: dict[str, Handler]) -> None:
        application = web.Application()
        for path, handler in routes.items():
            application.router.add_get(path, handler)
        runner = web.AppRunner(application, access_log=None)
        self._stack.push_async_callback(runner.cleanup)
        await runner.setup()
        host, _, port = address.rpartition(":")
        await web.TCPSite(runner, host, int(port)).start()

    async def _live(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        reason = self._why_not_ready()
        return web.Response(text=(reason or "ok") + "\n", status=503 if reason else 200)

    async def _scraped(self, _: web.Request) -> web.Response:
        text = generate_latest(self._measures.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
