"""The waiting room: requests for a name without a route wait here, for one resolution a name.

Each waits for as long as its own deadline lets it. One that gives up changes nothing for the
others; when the last one has given up nobody asks any more, though the load that was begun goes
on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from mesh.core.errors import DeadlineExceeded, MeshError, Overloaded
from mesh.ops.clock import monotonic_s
from mesh.ops.metrics import CACHE_MISS, REQ_QUEUE_DELAY, Metrics
from mesh.ops.tasks import Tasks
from router.port import Upstream

DEFAULT_WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many requests may wait, for one model and on this node."""

    per_model: int = 1_000
    per_node: int = 10_000


@dataclass(slots=True)
class Flight:
    """One resolution, and the requests that wait for it."""

    task: asyncio.Task[None]
    waiters: set[asyncio.Future[Upstream]] = field(default_factory=set)


class WaitingRoom:
    """`resolve` answers with an upstream that was entered once."""

    def __init__(
        self,
        resolve: Callable[[str], Awaitable[Upstream]],
        limits: Limits,
        metrics: Metrics | None = None,
    ) -> None:
        self._resolve = resolve
        self._metrics = metrics or Metrics()
        self._limits = limits
        self._flights: dict[str, Flight] = {}
        self._waiting = 0
        self._tasks = Tasks()

    @property
    def waiting(self) -> int:
        """How many requests wait now."""
        return self._waiting

    async def wait(self, name: str, timeout_s: float | None) -> Upstream:
        """The upstream of a name, entered once for this caller.

        Raises what `resolve` raises, DeadlineExceeded after `timeout_s` (None: 120 s), Overloaded.
        """
        flight = self._join(name)
        waiter: asyncio.Future[Upstream] = asyncio.get_running_loop().create_future()
        flight.waiters.add(waiter)
        self._waiting += 1
        limit_s = DEFAULT_WAIT_S if timeout_s is None else timeout_s
        started_s = monotonic_s()
        try:
            async with asyncio.timeout(limit_s):
                upstream = await waiter
        except TimeoutError:
            self._leave_answer(waiter)
            raise DeadlineExceeded(name, monotonic_s() - started_s) from None
        except asyncio.CancelledError:
            self._leave_answer(waiter)
            raise
        else:
            self._metrics.observe(CACHE_MISS, (monotonic_s() - started_s) * 1000.0)
            return upstream
        finally:
            self._metrics.observe(REQ_QUEUE_DELAY, (monotonic_s() - started_s) * 1000.0)
            self._waiting -= 1
            self._part(name, flight, waiter)

    async def close(self) -> None:
        await self._tasks.close()

    def _join(self, name: str) -> Flight:
        if self._waiting >= self._limits.per_node:
            raise Overloaded("requests that wait on this node", self._limits.per_node)
        flight = self._flights.get(name)
        if flight is None:
            flight = Flight(self._tasks.spawn(self._fly(name), f"resolve {name}"))
            self._flights[name] = flight
        elif len(flight.waiters) >= self._limits.per_model:
            raise Overloaded(f"requests that wait for predictor {name!r}", self._limits.per_model)
        return flight

    def _part(self, name: str, flight: Flight, waiter: asyncio.Future[Upstream]) -> None:
        flight.waiters.discard(waiter)
        if not flight.waiters and self._flights.get(name) is flight:
            del self._flights[name]
            flight.task.cancel()

    async def _fly(self, name: str) -> None:
        try:
            upstream = await self._resolve(name)
        except MeshError as error:
            self._fail(name, error)
        except Exception as error:
            self._fail(name, error)  # a bug: nobody waits for a resolution that has died of it
            raise
        else:
            now = monotonic_s()
            for waiter in self._land(name):
                upstream.enter(now)
                waiter.set_result(upstream)
            upstream.leave()

    def _fail(self, name: str, error: Exception) -> None:
        for waiter in self._land(name):
            waiter.set_exception(error)

    def _land(self, name: str) -> list[asyncio.Future[Upstream]]:
        """Ends the flight; those who still wait for its answer."""
        flight = self._flights.pop(name)
        return [waiter for waiter in flight.waiters if not waiter.done()]

    @staticmethod
    def _leave_answer(waiter: asyncio.Future[Upstream]) -> None:
        """An answer that came as its request gave up was entered for it all the same."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            waiter.result().leave()
