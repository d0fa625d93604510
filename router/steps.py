"""Changes of Predictors for their owners: into the store, and back into the view of this node."""

import asyncio
import logging
from contextlib import suppress

from mesh.agent.engine import Node
from mesh.agent.predictors import Outcome, advance
from mesh.core.errors import Unavailable
from mesh.core.ids import PredictorName, Revision
from mesh.core.transition import Event, Retry
from mesh.ops.clock import wall_s
from mesh.registry.port import Registry
from mesh.wire.records import SEEDED
from router.administration import Administration

log = logging.getLogger(__name__)

SEEN_LIMIT_S = 10.0
# Longer than a store is being filled where every node that could be asked is there.
WHOLE_S = 5.0
LOOK_S = 0.1


class Steps:
    """`registry` is asked and written; what a caller reads afterwards comes from the view."""

    def __init__(self, node: Node, registry: Registry, administration: Administration) -> None:
        self.registry = registry
        self._node = node
        self._administration = administration

    async def take(self, name: PredictorName, event: Event) -> Outcome:
        """One step of `core.transition`; returns once this node acts on it. Raises MeshError."""
        await self._until_whole()
        outcome = await advance(self.registry, name, event, wall_s)
        await self.seen(outcome.revision)
        retried = [effect.model for effect in outcome.effects if isinstance(effect, Retry)]
        if retried:
            await self._administration.forget(retried)
        return outcome

    async def _until_whole(self) -> None:
        """Waits while a store in a mesh is being filled again: what it has not got is only lost.

        What was deleted now would be written back, and what was changed would be made anew. Raises
        Unavailable after WHOLE_S.
        """
        if not self._node.identity.address:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(WHOLE_S):
                while await self.registry.get(SEEDED) is None:  # noqa: ASYNC110 - the view may be of before
                    await asyncio.sleep(LOOK_S)
                return
        raise Unavailable("the store has lost its data and is being filled: try again")

    async def seen(self, revision: Revision | None) -> None:
        """Returns once the view has it, or after a while; None: nothing is to be seen."""
        if revision is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SEEN_LIMIT_S):
                    await self._node.follower.caught_up(revision)
