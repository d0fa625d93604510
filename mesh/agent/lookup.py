"""A name that this node does not know may have been written a moment ago, through another node.

So the store is asked before a caller is told that there is none. Only some at once: names that
nobody knows must not become a load on the store.
"""

import asyncio
from contextlib import suppress
from typing import Any

from mesh.core.errors import Unavailable
from mesh.core.ids import PredictorName
from mesh.registry.follow import Follower
from mesh.registry.port import Registry
from mesh.wire import records

AT_ONCE = 32
LIMIT_S = 0.5


class Lookup:
    """`see` is for names that are not in the view."""

    def __init__(self, registry: Registry, follower: Follower[Any]) -> None:
        self._registry = registry
        self._follower = follower
        self._asking = 0

    async def see(self, name: PredictorName) -> None:
        """Returns once the view has the Predictor, if the store has it and can be asked."""
        if self._asking >= AT_ONCE or not self._follower.is_current:
            return
        self._asking += 1
        try:
            with suppress(TimeoutError, Unavailable):
                async with asyncio.timeout(LIMIT_S):
                    entry = await self._registry.get(records.predictor_key(name))
                    if entry is not None:
                        await self._follower.caught_up(entry.revision)
        finally:
            self._asking -= 1
