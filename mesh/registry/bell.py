"""A bell: wakes all who wait at this moment, and remembers nothing."""

import asyncio


class Bell:
    """Look first, then `wait`, with no await between the two: then no ring is missed."""

    def __init__(self) -> None:
        self._next_ring = asyncio.Event()

    def ring(self) -> None:
        rung, self._next_ring = self._next_ring, asyncio.Event()
        rung.set()

    async def wait(self) -> None:
        await self._next_ring.wait()
