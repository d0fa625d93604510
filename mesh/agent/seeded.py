"""A mark in the store says that it has what the mesh knows; a store that was wiped lacks it.

A node that starts must not believe an empty store at once: nodes that remember what there was may
be about to write it back (`reseed`), the mark last. Where nobody says so for a while (`recall`),
the mesh is a new one, and the node that starts makes the mark.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from mesh.core.errors import Conflict, Unavailable
from mesh.core.view import View
from mesh.registry.follow import Follower
from mesh.registry.port import Absent, Put, Registry
from mesh.wire.records import RECALLS, SEEDED

log = logging.getLogger(__name__)

# Longer than a node that is well takes to find the store again, and to say what it remembers.
QUIET_S = 1.5
VALUE = b"1"


async def until_seeded(view: View, follower: Follower[Any], registry: Registry) -> None:
    """Returns once the store is complete, as far as anybody knows; call it once it was listed.

    It waits as long as nodes are about to fill it, or Predictors and models come in, and then
    QUIET_S.
    """
    before, known = -1, len(view.predictors) + len(view.models)
    while not follower.knows(SEEDED) and (known != before or follower.knows_any(RECALLS)):
        before = known
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                await follower.until_known(SEEDED)
        known = len(view.predictors) + len(view.models)
    if follower.knows(SEEDED):
        return
    log.info("the store is new", extra={"predictors": len(view.predictors)})
    with suppress(Conflict, Unavailable):  # made by another, or made later by whoever starts next
        await registry.commit([Put(SEEDED, VALUE)], [Absent(SEEDED)])
