"""Claims: of all nodes that would load the first copy of a model, one does.

A claim is a key that is created if absent, under the lease of the node that loads. It is held until
the copy's own record says what became of it. Where the store is away nobody can claim, and loads go
on without: a surplus copy is harmless, and trimmed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mesh.agent.announce import Announcer
from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import ModelId, NodeId
from mesh.registry.follow import Follower
from mesh.registry.port import LeaseLost
from mesh.wire import records

log = logging.getLogger(__name__)

CLAIM_S = 1.0


class Claims:
    """The claims of one node; `is_served` says whether another one has a model Loaded."""

    def __init__(
        self,
        own: NodeId,
        announcer: Announcer,
        follower: Follower[Any],
        is_served: Callable[[ModelId], bool],
    ) -> None:
        self._is_served = is_served
        self._own = own
        self._announcer = announcer
        self._follower = follower
        self._held: set[ModelId] = set()

    async def take(self, model: ModelId) -> bool:
        """Whether to load it: False where another node has claimed it, or has it Loaded."""
        if model in self._held:
            return True
        try:
            async with asyncio.timeout(CLAIM_S):
                self._held.add(model)
                key = records.claim_key(model)
                revision = await self._announcer.claim(key, self._own.encode())
                await self._follower.caught_up(revision)
        except Conflict:
            self._held.discard(model)
            return False
        except (TimeoutError, Unavailable, LeaseLost) as error:
            log.warning("loading without a claim", extra={"model": model, "cause": str(error)})
        return not self._is_served(model)  # the view is as new as the claim

    def release(self, model: ModelId) -> None:
        """Written after the copy's record, so that nobody sees neither."""
        if model in self._held:
            self._held.discard(model)
            self._announcer.drop(records.claim_key(model))
