"""Changes of Predictors for their owners: into the store, and back into the view of this node."""

import asyncio
import logging
from contextlib import suppress

from mesh.agent.engine import Node
from mesh.agent.predictors import Outcome, advance
from mesh.core.errors import Unavailable
from mesh.core.ids import PredictorName, Revision
from mesh.core.transition import Event, Removed, Retry
from mesh.ops.clock import wall_s
from mesh.registry.port import Registry
from mesh.wire.records import SEEDED
from router.administration import Administration

log = logging.getLogger(__name__)

SEEN_LIMIT_S = 10.0


class Steps:
    """`registry` is asked and written; what a caller reads afterwards comes from the view."""

    def __init__(self, node: Node, registry: Registry, administration: Administration) -> None:
        self.registry = registry
        self._node = node
        self._administration = administration

    async def take(self, name: PredictorName, event: Event) -> Outcome:
        """One step of `core.transition`; returns once this node acts on it. Raises MeshError."""
        if isinstance(event, Removed):
            await self._check_whole()
        outcome = await advance(self.registry, name, event, wall_s)
        await self.seen(outcome.revision)
        retried = [effect.model for effect in outcome.effects if isinstance(effect, Retry)]
        if retried:
            await self._administration.forget(retried)
        return outcome

    async def _check_whole(self) -> None:
        """That what a store in a mesh has not got is not only lost: it would be written back, and
        what was deleted meanwhile with it. Raises Unavailable."""
        if self._node.identity.address and await self.registry.get(SEEDED) is None:
            raise Unavailable("the store has lost its data and is being filled: try again")

    async def seen(self, revision: Revision | None) -> None:
        """Returns once the view has it, or after a while; None: nothing is to be seen."""
        if revision is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SEEN_LIMIT_S):
                    await self._node.follower.caught_up(revision)
