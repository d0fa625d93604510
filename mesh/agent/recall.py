"""Who of the nodes knows most of a store that was lost, and so fills the one that is there now.

Each node writes down how far it had seen the store of before. One that stood still, or was cut off
from that store, had seen less of it than the others: it writes nothing while one that had seen more
is there, and what that one did not write is gone. All others take turns.
"""

import asyncio
from collections.abc import Iterable
from urllib.parse import quote, unquote

from mesh.agent.reach import Reach
from mesh.core.ids import NodeId, Revision
from mesh.core.view import View
from mesh.registry.follow import Past
from mesh.registry.port import Delete, Put, Registry
from mesh.wire.records import RECALLS, SEEDED

POLL_S = 0.25
# Longer than a node that is well takes to find the store again.
ALL_S = 3.0
RANK_S = 0.5
# Longer than a store takes to be filled: what a node that died meanwhile had written goes then.
KEPT_S = 60.0


def encode(past: Past) -> bytes:
    return f"{past.store_id} {past.revision}".encode()


def decode(value: bytes) -> Past | None:
    """None where it says nothing of a store, as the mark of a new mesh does."""
    store_id, _, revision = value.decode(errors="replace").rpartition(" ")
    return Past(store_id, Revision(int(revision))) if revision.isdecimal() and store_id else None


class Company:
    """The other nodes: who should be there, and whether one of them answers now."""

    def __init__(self, own: NodeId, view: View, reach: Reach) -> None:
        self.own = own
        self._view = view
        self._reach = reach

    def is_complete(self, there: Iterable[NodeId]) -> bool:
        """Whether all who can be reached, as far as is known, are among these, or this node."""
        expected = {node for node in self._view.nodes if not self._reach.is_down(node)}
        return expected <= {self.own, *there}

    async def has_any(self, nodes: Iterable[NodeId]) -> bool:
        """Whether one of these answers."""
        for node in nodes:
            record = self._view.nodes.get(node)
            if record is not None and await self._reach.answers(node, record.address):
                return True
        return False


class Recall:
    """One node's part in filling a store that lost data; `past` is what it had seen of before."""

    def __init__(self, registry: Registry, company: Company, past: Past) -> None:
        self._key = RECALLS + quote(company.own, safe="")
        self._registry = registry
        self._company = company
        self._past = past

    async def turn(self) -> Revision | None:
        """Returns None once it is for this node to write what is missing.

        Or the revision of this store at which a node that had seen more has written all it knew.
        Raises Unavailable.
        """
        lease = await self._registry.grant(KEPT_S)
        await self._registry.commit([Put(self._key, encode(self._past), lease)])
        polls = 0
        while True:
            filled = await self._filled()
            if filled is not None and self._lead(filled[0]) > 0:
                return filled[1]
            others = await self._others()
            is_early = filled is None and polls * POLL_S < ALL_S
            is_early = is_early and not self._company.is_complete(others)
            ahead = [node for node, past in others.items() if self._lead(past) > 0]
            if not is_early and not await self._company.has_any(ahead):
                break
            polls += 1
            await asyncio.sleep(POLL_S)
        await asyncio.sleep(RANK_S * sum(node < self._company.own for node in others))
        return None

    async def done(self) -> None:
        """All that this node knows has been written: marks the store as filled by it.

        Raises Unavailable.
        """
        filled = await self._filled()
        is_marked = filled is not None and self._lead(filled[0]) >= 0
        mark = [] if is_marked else [Put(SEEDED, encode(self._past))]
        await self._registry.commit([*mark, Delete(self._key)])

    async def _filled(self) -> tuple[Past, Revision] | None:
        """What was known of the same store by one who filled this one, and since when it is so."""
        entry = await self._registry.get(SEEDED)
        past = None if entry is None else decode(entry.value)
        if entry is None or past is None or past.store_id != self._past.store_id:
            return None
        return past, entry.revision

    async def _others(self) -> dict[NodeId, Past | None]:
        entries = (await self._registry.list(RECALLS)).entries
        nodes = {NodeId(unquote(it.key.removeprefix(RECALLS))): decode(it.value) for it in entries}
        nodes.pop(self._company.own, None)
        return nodes

    def _lead(self, other: Past | None) -> int:
        """How much more the other one had seen of the same store; 0 where that cannot be told."""
        if other is None or other.store_id != self._past.store_id:
            return 0
        return other.revision - self._past.revision
