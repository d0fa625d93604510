"""Work by key: one at a time for each, again when it changes meanwhile, later when it fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh.ops.tasks import Tasks

log = logging.getLogger(__name__)

FIRST_S, LONGEST_S = 0.2, 60.0

# Brings about what a key is about; after how many seconds to do so again, None for never.
Work = Callable[[str], Awaitable[float | None]]


class Refused(Exception):
    """What the other side says to work that cannot be done now; it is tried again later."""


class WorkQueue:
    """`at_once` keys are worked on at a time. Errors of type Refused cost a pause of that key."""

    def __init__(self, name: str, work: Work, *, at_once: int = 4) -> None:
        self._name = name
        self._work = work
        self._at_once = at_once
        self._ready: dict[str, None] = {}
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._tasks = Tasks()
        self.done = 0
        self.failed = 0

    def depth(self) -> int:
        """How many keys wait for their turn."""
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        return not self._ready and not self._busy

    def add(self, key: str) -> None:
        """Something about it changed."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if key in self._busy:
            self._again.add(key)
        else:
            self._ready[key] = None
            self._wake.set()

    def add_after(self, key: str, delay_s: float) -> None:
        """The same in a while, unless it comes earlier."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None and timer.when() <= loop.time() + delay_s:
            return
        if timer is not None:
            timer.cancel()
        self._timers[key] = loop.call_later(delay_s, self.add, key)

    async def run(self) -> None:
        """Works for ever."""
        try:
            while True:
                while self._ready and len(self._busy) < self._at_once:
                    key = next(iter(self._ready))
                    del self._ready[key]
                    self._busy.add(key)
                    self._tasks.spawn(self._one(key), f"{self._name} {key}")
                self._wake.clear()
                await self._wake.wait()
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await self._tasks.close()

    async def _one(self, key: str) -> None:
        delay_s: float | None = None
        try:
            delay_s = await self._work(key)
            self._failures.pop(key, None)
            self.done += 1
        except Refused as error:
            delay_s = self._put_off(key, str(error))
        except Exception:
            log.exception("work failed", extra={"queue": self._name, "key": key})
            delay_s = self._put_off(key, "")
        finally:
            self._busy.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif delay_s is not None:
                self.add_after(key, delay_s)
            self._wake.set()

    def _put_off(self, key: str, problem: str) -> float:
        self.failed += 1
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay_s = min(FIRST_S * 2 ** min(count - 1, 12), LONGEST_S)
        if problem:
            fields = {"queue": self._name, "key": key, "problem": problem, "again_s": delay_s}
            log.warning("work put off", extra=fields)
        return float(delay_s)
