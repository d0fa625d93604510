"""What nodes know of a store that is away, and tell one of them that has seen less of it.

A node that was frozen while the store was there, and woke up once it was away, would answer from a
view of long ago until the store is back. The others have seen more.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from mesh.agent.intake import News, Reading
from mesh.agent.reseed import OURS
from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId, Revision
from mesh.core.records import CopyRecord, Record
from mesh.core.view import View
from mesh.peers.port import Memory, Peers
from mesh.registry.follow import Follower
from mesh.registry.port import Change
from mesh.wire import records

NOTHING = Revision(0)
ASKED = 3


class SharedMemory:
    """`believe` is called with what others know; `hear` with the copies that they know of."""

    def __init__(
        self,
        own: NodeId,
        view: View,
        follower: Follower[Any],
        peers: Peers,
        believe: Callable[[tuple[News, ...]], None],
        hear: Callable[[CopyRecord], None],
    ) -> None:
        self._own = own
        self._view = view
        self._follower = follower
        self._peers = peers
        self._believe = believe
        self._hear = hear
        # Up to where others have told of the store; of this life of it.
        self._told = NOTHING
        self._resets = 0

    @property
    def _seen(self) -> Revision:
        is_same = self._resets == self._follower.resets
        return max(self._follower.revision, self._told if is_same else NOTHING)

    def since(
        self, store_id: str, revision: Revision
    ) -> tuple[Revision, Iterator[tuple[str, bytes]]] | None:
        """All that this node knows of the store, if it has seen more of it, and up to where.

        It is that of this moment, however late it is read.
        """
        if store_id != self._follower.store_id or self._seen <= revision:
            return None
        known = {**_ours(self._view), **_copies(self._view)}
        return self._seen, ((key, records.encode(record)) for key, record in known.items())

    async def refresh(self) -> None:
        """Asks some of the others, and returns once they have told what they know."""
        others = [it.address for it in self._view.nodes.values() if it.id != self._own]
        async with asyncio.TaskGroup() as group:
            for address in random.sample(others, min(ASKED, len(others))):
                group.create_task(self._ask(address))

    def sift(self, changes: tuple[News, ...]) -> tuple[News, ...]:
        """The changes of a commit without those that others have told already.

        Without it the view would go back to what was before them.
        """
        if not self._told or self._resets != self._follower.resets:
            return changes
        return tuple(it for it in changes if it.revision > self._told or not _is_ours(it.key))

    async def _ask(self, address: str) -> None:
        with suppress(Unavailable):
            store_id, seen = self._follower.store_id, self._seen
            memory = await self._peers.recollect(address, store_id, seen)
            if memory and memory.revision > self._seen and store_id == self._follower.store_id:
                self._take(memory)

    def _take(self, memory: Memory) -> None:
        self._told, self._resets = memory.revision, self._follower.resets
        read = Reading()
        theirs = {key: read(key, value) for key, value in memory.entries.items()}
        mine = _ours(self._view)
        told = memory.revision
        news: list[News] = [
            Change(key, value, told)
            for key, value in theirs.items()
            if _is_ours(key) and mine.get(key) != value
        ]
        gone: list[News] = [Change(key, None, told) for key in mine if key not in theirs]
        self._believe((*news, *gone))
        for record in theirs.values():
            if isinstance(record, CopyRecord) and record.node != self._own:
                self._hear(record)


def _is_ours(key: str) -> bool:
    return key.startswith(OURS)


def _ours(view: View) -> dict[str, Record]:
    known: dict[str, Record] = {
        records.predictor_key(it.name): it for it in view.predictors.values()
    }
    known |= {records.model_key(it.id): it for it in view.models.values()}
    return known | {records.runtime_key(it.name): it for it in view.runtimes.values()}


def _copies(view: View) -> Mapping[str, Record]:
    return {records.copy_key(it.model, it.node): it for it in view.every_copy()}
