"""Whether what this node knows is from now: a process that was frozen knows only what was then.

The pulse beats on the event loop. Where a beat is late the process stood still (SIGSTOP, a paused
machine, a loop held up), and what came in meanwhile must not be answered from a view of long ago:
the node takes itself for stale until the store has been asked, or other nodes where it is away.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId
from mesh.ops.clock import Clock
from mesh.registry.follow import Follower
from mesh.registry.port import Delete, Put, Registry

log = logging.getLogger(__name__)

BEAT_S = 0.25
# A view may be this old and no older, or the store has to say that it still holds.
STALE_S = 2.0
CONFIRM_S = 5.0
# Where it cannot, other nodes are asked for so long.
OTHERS_S = 5.0
PULSE = "pulse/"


class Pulse:
    """`beat_s` is when it last beat, in monotonic seconds; `is_fresh` may be asked at any time.

    `settled` returns once it is known what is left of a store that lost data, `ask_others` once
    other nodes have told what they know of a store that is away.
    """

    def __init__(
        self,
        own: NodeId,
        registry: Registry,
        follower: Follower[Any],
        clock: Clock,
        settled: Callable[[], Awaitable[None]],
        ask_others: Callable[[], Awaitable[None]],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._key = PULSE + own
        self._registry = registry
        self._follower = follower
        self._clock = clock
        self._settled = settled
        self._ask_others = ask_others
        self._pause = pause
        self._fresh = asyncio.Event()
        self._fresh.set()
        self.beat_s = clock.monotonic_s()

    def is_fresh(self, now: float) -> bool:
        """`now`: monotonic seconds. Await-free and cheap: each request asks."""
        return now - self.beat_s < STALE_S and self._fresh.is_set()

    async def fresh(self) -> None:
        """Returns once the view is from now, as far as the store can say."""
        while not self.is_fresh(self._clock.monotonic_s()):
            if self._fresh.is_set():
                await self._pause(BEAT_S / 5)  # late, and not yet noticed by the beat
            else:
                await self._fresh.wait()

    async def run(self) -> None:
        while True:
            await self._pause(BEAT_S)
            now = self._clock.monotonic_s()
            late_s = now - self.beat_s
            if late_s >= STALE_S:
                self._fresh.clear()
                log.warning("process stood still", extra={"seconds": round(late_s, 1)})
                await self._confirm()
                self._fresh.set()
            self.beat_s = self._clock.monotonic_s()

    async def _confirm(self) -> None:
        try:
            async with asyncio.timeout(CONFIRM_S):
                # Its own mark, not a revision alone: the store may be another one by now, whose
                # revisions are lower than what is known of the one before.
                revision = await self._registry.commit([Put(self._key, b"")])
                await self._follower.until_at(self._key, revision)
                await self._settled()
                await self._registry.commit([Delete(self._key)])
        except (TimeoutError, Unavailable):
            with suppress(TimeoutError):
                async with asyncio.timeout(OTHERS_S):
                    await self._ask_others()
