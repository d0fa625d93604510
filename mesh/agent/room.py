"""Room for loads: the cache, the runtime's loading slots, and who waits for either.

A load gets its room first and its slot second. Live requests go before transitions, and those
before loads that only fill free room: whoever is short of room has it before all who come after him
in that order.
"""

import itertools
import math
from collections.abc import Callable

from mesh.agent.calls import UNTOLD, Calls
from mesh.agent.copy import Copy, NotWanted, Purpose
from mesh.agent.signals import Signals
from mesh.core.cache import Cache, Entry, Evict, Fresher, Full, Granted, TooLarge
from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId
from mesh.runtime.port import Runtime, RuntimeInfo

DEFAULT_SIZE_BYTES = 1_000_000
# Of two that were used within so long of each other, neither makes room for the other because a
# node leaves.
IN_USE_S = 60.0
# Who goes first.
PURPOSES = (Purpose.USE, Purpose.TARGET, Purpose.EXTRA, Purpose.FILL, Purpose.AGAIN)
RANK = {purpose: rank for rank, purpose in enumerate(PURPOSES)}
WAKING = tuple(purpose.value for purpose in PURPOSES)


class Room:
    """`evict` is called with each model that must leave; `clock` gives monotonic seconds."""

    def __init__(
        self, runtime: Runtime, evict: Callable[[ModelId], None], clock: Callable[[], float]
    ) -> None:
        self.cache = Cache()
        self.loading = 0
        # Models of which there would be too few without the copy here: see `growth`.
        self.kept: frozenset[ModelId] = frozenset()
        self.info: RuntimeInfo | None = None
        self.calls = UNTOLD
        self._runtime = runtime
        self._evict = evict
        self._clock = clock
        self._signals = Signals()
        self._short: set[Copy] = set()
        self._line: dict[Copy, int] = {}
        self._tickets = itertools.count()

    def open(self, info: RuntimeInfo) -> None:
        """The runtime is READY, and empty but for what the cache says."""
        self.info = info
        self.calls = Calls(info)
        self.cache.capacity_bytes = info.capacity_bytes
        self.changed()

    def close(self) -> None:
        """The runtime is lost: loads wait until it is back."""
        self.info = None

    def changed(self) -> None:
        """Something left, was unpinned, or gave up its slot: those who wait look again."""
        self._signals.notify(WAKING)

    async def find(self, copy: Copy) -> None:
        """Gives `copy` its entry, pinned once for the load itself, when there is room and a slot.

        Raises ModelLoadFailed where there can be no room, NotWanted where the copy may not evict.
        """
        size_bytes = await self._estimate(copy)
        entry = await self._wait_for_entry(copy, size_bytes)
        entry.pins += 1
        entry.used_s = min(entry.used_s, copy.last_use_s)
        copy.hold(entry)
        try:
            await self._wait_for_slot(copy)
        except BaseException:
            if copy.entry is entry:  # else it was taken back, and may be another copy's by now
                self.cache.drop(copy.id)
                copy.entry = None
            self.changed()
            raise

    async def _wait_for_entry(self, copy: Copy, size_bytes: int) -> Entry:
        try:
            while (entry := self._ask(copy, size_bytes)) is None:
                await self._wait(copy)
            return entry
        finally:
            if copy in self._short:
                self._short.discard(copy)
                self.changed()

    async def _wait(self, copy: Copy) -> None:
        await self._signals.wait(copy.purpose.value)

    def _ask(self, copy: Copy, size_bytes: int) -> Entry | None:
        if self.info is None:
            return None
        if self._is_behind(copy):
            self._turn_away(copy, "requests wait for room")
            return None
        while True:
            answer = self.cache.ask(
                copy.id,
                size_bytes,
                now=self._clock(),
                may_evict=copy.purpose.may_evict,
                protected=copy.protected | self.kept,
                used_s=copy.last_use_s - IN_USE_S if copy.is_handed_over else math.inf,
            )
            match answer:
                case Granted(entry=entry):
                    return entry
                case Evict(victims=victims):
                    for victim in victims:
                        self._evict(victim)
                case TooLarge(reason=reason):
                    raise ModelLoadFailed(reason, model=copy.id, size_bytes=size_bytes)
                case Fresher(reason=reason):
                    raise NotWanted(reason)
                case Full(reason=reason):
                    self._turn_away(copy, reason)
                    return None

    def _turn_away(self, copy: Copy, reason: str) -> None:
        if not copy.purpose.may_evict:
            raise NotWanted(reason)
        self._short.add(copy)

    def _is_behind(self, copy: Copy) -> bool:
        """Whether somebody who goes first has too little room."""
        rank = RANK[copy.purpose]
        return rank > 0 and any(RANK[other.purpose] < rank for other in self._short)

    async def _estimate(self, copy: Copy) -> int:
        while True:
            while self.info is None:
                await self._wait(copy)
            try:
                predicted = await self._runtime.predict_size_bytes(copy.model)
            except Unavailable:
                predicted = 0  # if it is gone, that is seen elsewhere
            if self.info is not None:
                return predicted or self.info.default_size_bytes or DEFAULT_SIZE_BYTES

    async def _wait_for_slot(self, copy: Copy) -> None:
        self._line[copy] = next(self._tickets)
        try:
            while not self._is_next(copy):
                await self._wait(copy)
        finally:
            del self._line[copy]

    def _is_next(self, copy: Copy) -> bool:
        if self.info is None or self.loading >= max(1, self.info.max_loading):
            return False
        first = min(self._line, key=lambda waiting: (RANK[waiting.purpose], self._line[waiting]))
        return first is copy
