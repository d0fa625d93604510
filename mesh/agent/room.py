"""Room for loads: the cache, the runtime's loading slots, and who waits for either.

A load gets its room first and its slot second. Live requests go before transitions, and those
before loads that only fill free room.
"""

import itertools
from collections.abc import Callable

from mesh.agent.copy import Copy, NotWanted, Purpose
from mesh.agent.signals import Signals
from mesh.core.cache import Cache, Entry, Evict, Full, Granted, TooLarge
from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId
from mesh.runtime.port import Runtime, RuntimeInfo

DEFAULT_SIZE_BYTES = 1_000_000
RANK = {Purpose.USE: 0, Purpose.TARGET: 1, Purpose.FILL: 2}
ROOM = "room"


class Room:
    """`evict` is called with each model that must leave; `clock` gives monotonic seconds."""

    def __init__(
        self, runtime: Runtime, evict: Callable[[ModelId], None], clock: Callable[[], float]
    ) -> None:
        self.cache = Cache()
        self.loading = 0
        self.info: RuntimeInfo | None = None
        self._runtime = runtime
        self._evict = evict
        self._clock = clock
        self._signals = Signals()
        self._line: dict[Copy, int] = {}
        self._tickets = itertools.count()

    def open(self, info: RuntimeInfo) -> None:
        """The runtime is READY, and empty but for what the cache says."""
        self.info = info
        self.cache.capacity_bytes = info.capacity_bytes
        self.changed()

    def close(self) -> None:
        """The runtime is lost: loads wait until it is back."""
        self.info = None

    def changed(self) -> None:
        """Something left, was unpinned, or gave up its slot: those who wait look again."""
        self._signals.notify((ROOM,))

    async def find(self, copy: Copy) -> None:
        """Gives `copy` its entry, pinned once for the load itself, when there is room and a slot.

        Raises ModelLoadFailed where there can be no room, NotWanted where the copy may not evict.
        """
        size_bytes = await self._estimate(copy)
        while (entry := self._ask(copy, size_bytes)) is None:
            await self._signals.wait(ROOM)
        entry.pins += 1
        copy.hold(entry)
        try:
            await self._wait_for_slot(copy)
        except BaseException:
            self.cache.drop(copy.id)
            copy.entry = None
            self.changed()
            raise

    def _ask(self, copy: Copy, size_bytes: int) -> Entry | None:
        if self.info is None:
            return None
        may_evict = copy.purpose is not Purpose.FILL
        while True:
            answer = self.cache.ask(
                copy.id,
                size_bytes,
                now=self._clock(),
                may_evict=may_evict,
                protected=copy.protected,
            )
            match answer:
                case Granted(entry=entry):
                    return entry
                case Evict(victims=victims):
                    for victim in victims:
                        self._evict(victim)
                case TooLarge(reason=reason):
                    raise ModelLoadFailed(reason, model=copy.id)
                case Full(reason=reason):
                    if not may_evict:
                        raise NotWanted(reason)
                    return None

    async def _estimate(self, copy: Copy) -> int:
        while True:
            while self.info is None:
                await self._signals.wait(ROOM)
            try:
                predicted = await self._runtime.predict_size_bytes(copy.model)
            except Unavailable:
                await self._signals.wait(ROOM)
                continue
            if self.info is not None:
                return predicted or self.info.default_size_bytes or DEFAULT_SIZE_BYTES

    async def _wait_for_slot(self, copy: Copy) -> None:
        self._line[copy] = next(self._tickets)
        try:
            while not self._is_next(copy):
                await self._signals.wait(ROOM)
        finally:
            del self._line[copy]

    def _is_next(self, copy: Copy) -> bool:
        if self.info is None or self.loading >= max(1, self.info.max_loading):
            return False
        first = min(self._line, key=lambda waiting: (RANK[waiting.purpose], self._line[waiting]))
        return first is copy
