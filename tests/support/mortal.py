"""A process that is killed at a chosen moment, as its surroundings see it.

What a life calls goes through `Mortal`. Before and after each call that writes, a moment passes; at
the chosen one the life ends: this call, and all of its later ones, clean-up included, are cancelled
and have no effect any more.
"""

import asyncio
import functools
import inspect
from collections.abc import Iterable
from typing import Any


class Fate:
    """Counts moments, and ends the life at number `at`; None: it is spared."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.moments: list[str] = []
        self.is_over = asyncio.Event()

    def pass_(self, moment: str) -> None:
        if not self.is_over.is_set():
            self.moments.append(moment)
        if len(self.moments) - 1 == self.at:
            self.is_over.set()
        self.check()

    def check(self) -> None:
        if self.is_over.is_set():
            raise asyncio.CancelledError


class Mortal:
    """`inner`, of which the calls named in `writes` are moments of a fate."""

    def __init__(self, inner: Any, fate: Fate, writes: Iterable[str]) -> None:
        self._inner = inner
        self._fate = fate
        self._writes = frozenset(writes)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @functools.wraps(found)
        async def call(*arguments: Any, **named: Any) -> Any:
            self._fate.check()
            if name not in self._writes:
                return await found(*arguments, **named)
            what = f"{type(self._inner).__name__}.{name}"
            self._fate.pass_(f"before {what}")
            answer = await found(*arguments, **named)
            self._fate.pass_(f"after {what}")
            return answer

        return call
