"""Whether a runtime that is connected still answers: one that hangs keeps its connections open."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

EVERY_S = 5.0
# Longer than what a runtime computes in one piece, during which many answer nothing else.
SILENCE_S = 30.0


class Silence(Exception):
    """The question was not answered in time."""


class Liveness:
    """`ask` asks whether it lives and raises Silence after so many seconds without any answer.

    Loads keep runtimes from answering as well, and have bounds of their own: a silence during which
    one was under way does not count. `silence_s` 0: it is never asked.
    """

    def __init__(self, ask: Callable[[float], Awaitable[None]], silence_s: float) -> None:
        self._ask = ask
        self._silence_s = silence_s
        self._loading = 0
        self._has_loaded = False

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A load lasts as long as the context."""
        self._loading += 1
        self._has_loaded = True
        try:
            yield
        finally:
            self._loading -= 1

    async def until_silent(self) -> None:
        """Asks every few seconds; returns once it was silent for too long."""
        if not self._silence_s:
            await asyncio.Event().wait()
        while await self._is_heard():  # noqa: ASYNC110 - it is asked, not waited for
            await asyncio.sleep(EVERY_S)

    async def _is_heard(self) -> bool:
        self._has_loaded = self._loading > 0
        try:
            await self._ask(self._silence_s)
        except Silence:
            return self._has_loaded
        return True
