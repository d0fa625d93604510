"""Keeps a view equal to the store: a listing, then every change after it, in order, for ever.

Whenever the watch ends (history compacted, connection lost) the store is listed again, and what
differs from the view is delivered as changes: nothing is lost, deletions included. A store that
went back in time (restored from a backup, or wiped) deletes nothing: its keys are delivered, and
`on_reset` learns which keys it does not have; whether those go is for their owner to say.

It knows keys and revisions, not values: the view belongs to the sink.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from itertools import chain

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.bell import Bell
from mesh.registry.port import Batch, Change, Compacted, Registry, Snapshot

Sink = Callable[[tuple[Change, ...]], None]

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 1.0
# Longer than any caller waits: a bound for those that set none.
CATCH_UP_S = 30.0


class Follower:
    """Delivers what is below `prefix` to `sink`, a commit a call; `run` it as a task.

    `sink` is synchronous and must not fail: an error of it ends `run`. `on_reset` is called after
    the new listing was delivered, with the keys that only the store of before had.
    """

    def __init__(
        self,
        registry: Registry,
        sink: Sink,
        *,
        prefix: str = "",
        on_reset: Callable[[frozenset[str]], None] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._sink = sink
        self._prefix = prefix
        self._on_reset = on_reset
        self._pause = pause
        self._pause_s = FIRST_PAUSE_S
        self._store_id: str | None = None
        self._is_current = False
        self._revision = Revision(0)
        self._known: dict[str, Revision] = {}
        self._resets = 0
        self._moved = Bell()

    @property
    def is_current(self) -> bool:
        """Whether the store has been listed and is watched just now, as far as is known."""
        return self._is_current and not self._registry.is_away

    def knows(self, key: str) -> bool:
        """Whether the store has this key, as far as it was followed."""
        return key in self._known

    async def until_known(self, key: str) -> None:
        """Returns once the store has this key."""
        while key not in self._known:
            await self._moved.wait()

    async def until_at(self, key: str, revision: Revision) -> None:
        """Returns once this put of the key, and so all before it in the same store, was delivered.

        Unlike `caught_up` it is not misled by a store that is another one now.
        """
        while self._known.get(key) != revision:
            await self._moved.wait()

    @property
    def revision(self) -> Revision:
        """Everything up to here has been delivered; 0 before the first listing."""
        return self._revision

    async def run(self) -> None:
        """Follows until cancelled; an absent store is tried again after 0.1 s, later each 1 s."""
        while True:
            try:
                await self._follow()
            except Compacted:
                continue
            except Unavailable:
                self._is_current = False
                await self._pause(self._pause_s)
                self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)

    async def wait_synced(self) -> None:
        """Waits for the first listing; being synced is for good, an outage keeps the view."""
        while self._store_id is None:
            await self._moved.wait()

    async def caught_up(self, revision: Revision) -> None:
        """Waits until all up to `revision` has been delivered.

        With a prefix of one's own, name the revision of a commit that touches it: not every store
        sends marks. Returns also when the store goes back in time meanwhile: what there is now has
        been delivered then, and revisions of before say nothing. Raises Unavailable after 30 s.
        """
        resets = self._resets
        try:
            async with asyncio.timeout(CATCH_UP_S):
                while self._revision < revision and self._resets == resets:
                    await self._moved.wait()
        except TimeoutError:
            cause = f"revision {revision} of the store was not seen in {CATCH_UP_S:.0f} s"
            raise Unavailable(cause) from None

    async def _follow(self) -> None:
        snapshot = await self._registry.list(self._prefix)
        self._catch_up(snapshot)
        self._is_current = True
        self._pause_s = FIRST_PAUSE_S
        watching = self._registry.watch(self._prefix, snapshot.revision, snapshot.store_id)
        async with aclosing(watching) as batches:
            async for batch in batches:
                self._deliver(batch)

    def _catch_up(self, snapshot: Snapshot) -> None:
        """Delivers how the listing differs from what is known. Await-free: one step of the view."""
        puts = [
            Change(entry.key, entry.value, entry.revision)
            for entry in sorted(snapshot.entries, key=lambda entry: entry.revision)
        ]
        gone = self._known.keys() - {entry.key for entry in snapshot.entries}
        is_reset = self._went_back(snapshot)
        if is_reset:
            self._resets += 1
            self._known.clear()
            deletions: list[Change] = []
        else:
            puts = [put for put in puts if self._known.get(put.key) != put.revision]
            deletions = [Change(key, None, snapshot.revision) for key in sorted(gone)]
        self._store_id = snapshot.store_id
        self._deliver(Batch(tuple(chain(puts, deletions)), snapshot.revision))
        if is_reset and self._on_reset is not None:
            self._on_reset(frozenset(gone))

    def _went_back(self, snapshot: Snapshot) -> bool:
        """Another store, an earlier revision of ours, or ours with an older value of a key."""
        if self._store_id is None:
            return False
        return (
            snapshot.store_id != self._store_id
            or snapshot.revision < self._revision
            or any(entry.revision < self._known.get(entry.key, 0) for entry in snapshot.entries)
        )

    def _deliver(self, batch: Batch) -> None:
        if batch.changes:
            self._sink(batch.changes)
        for change in batch.changes:
            if change.value is None:
                self._known.pop(change.key, None)
            else:
                self._known[change.key] = change.revision
        self._revision = batch.revision
        self._moved.ring()
