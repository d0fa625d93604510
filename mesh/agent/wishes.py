"""Runtimes that are waited for here and have no node: that they are wanted stands in the store.

Whoever starts nodes reads it there. It is written beside the way of a request, for as long as one
waits: at most every 5 s a runtime, and not where another node has just done so. Where the store is
away, nothing is lost but time.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import ModelId, PredictorName, RuntimeName
from mesh.core.records import RuntimeState, RuntimeWish
from mesh.core.runtimes import UNHEALTHY_AFTER_S
from mesh.core.view import View
from mesh.ops.tasks import Tasks
from mesh.registry.port import Exists, Put, Registry
from mesh.wire import records

log = logging.getLogger(__name__)

EVERY_S = 5.0
Runtimes = tuple[RuntimeName, ...]


@dataclass(slots=True, eq=False)
class Longing:
    """What requests wait for, for one model; `pins`: how many of them."""

    runtimes: Runtimes
    pins: int = 0

    def pin(self) -> None:
        self.pins += 1

    def unpin(self) -> None:
        self.pins -= 1


class Wishes:
    """Of one node. `now`: seconds since the epoch."""

    def __init__(self, view: View, registry: Registry, now: Callable[[], float]) -> None:
        self._view = view
        self._registry = registry
        self._now = now
        self._longings: dict[ModelId, Longing] = {}
        self._written_s: dict[RuntimeName, float] = {}
        self._writing: set[RuntimeName] = set()
        self._tasks = Tasks()
        self._looked_s = now()

    def hold(self, model: ModelId, runtimes: Runtimes) -> Longing:
        """What a request for this model waits for; who waits must pin it."""
        self.wish(runtimes)
        longing = self._longings.get(model)
        if longing is None or longing.runtimes != runtimes:
            longing = self._longings[model] = Longing(runtimes)
        return longing

    def wish(self, runtimes: Iterable[RuntimeName]) -> None:
        """These are wanted now."""
        for runtime in runtimes:
            if runtime not in self._writing and self._is_due(runtime):
                self._writing.add(runtime)
                self._tasks.spawn(self._write(runtime), f"wish for {runtime}")

    def tick(self) -> frozenset[PredictorName]:
        """Wishes once more what is still waited for; called about once a second.

        The Predictors that have begun to show that their runtime takes too long.
        """
        for model, longing in list(self._longings.items()):
            if longing.pins:
                self.wish(longing.runtimes)
            else:
                del self._longings[model]
        now, before = self._now(), self._looked_s
        self._looked_s = now
        late = [
            runtime
            for runtime in self._view.runtimes.values()
            if runtime.state is RuntimeState.STARTING
            and before < runtime.since_s + UNHEALTHY_AFTER_S <= now
        ]
        return frozenset[PredictorName]().union(*map(self._view.put, late))

    async def close(self) -> None:
        await self._tasks.close()

    def _is_due(self, runtime: RuntimeName) -> bool:
        seen = self._view.wishes.get(runtime)
        moments = (self._written_s.get(runtime), None if seen is None else seen.wanted_s)
        now = self._now()
        return all(moment is None or abs(now - moment) >= EVERY_S for moment in moments)

    async def _write(self, runtime: RuntimeName) -> None:
        wish = RuntimeWish(runtime, self._now())
        put = Put(records.wanted_key(runtime), records.encode(wish))
        try:
            await self._registry.commit([put], [Exists(records.runtime_key(runtime))])
            self._written_s[runtime] = wish.wanted_s
        except Conflict:
            pass  # there is no such runtime any more
        except Unavailable as error:
            log.warning("wish not written", extra={"runtime": runtime, "cause": str(error)})
        finally:
            self._writing.discard(runtime)
