"""Keeps a view equal to the store: a listing, then every change after it, in order, for ever.

Whenever the watch ends (history compacted, connection lost) the store is listed again, and what
differs from the view is delivered as changes: nothing is lost, deletions included. A store that
went back in time (restored from a backup, or wiped) deletes nothing: its keys are delivered, and
`on_reset` learns which keys it does not have, and how far the store of before was seen; whether the
keys go is for their owner to say.

It knows keys and revisions, not values: the view belongs to the sink. Values are read as they come,
so that a large store is never held as bytes.
"""

import asyncio
import operator
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.bell import Bell
from mesh.registry.known import Known, split
from mesh.registry.port import Batch, Change, Compacted, Registry, Snapshot

Value = TypeVar("Value")
Read_co = TypeVar("Read_co", covariant=True)


class Read(Protocol[Read_co]):
    """Reads what is listed, or changed, together."""

    def __call__(self, key: str, value: bytes) -> Read_co: ...

    def shared(self, value: Any) -> Any:
        """The equal object that was met before in what is read together, or this one."""
        ...


Reader = Callable[[], Read[Value]]
Sink = Callable[[tuple[Change[Value], ...]], None]

FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 1.0
# Longer than any caller waits: a bound for those that set none.
CATCH_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class Past:
    """A store that is no more, and up to which revision of it all was delivered."""

    store_id: str
    revision: Revision


class AsBytes:
    """For followers of values as they are."""

    def __call__(self, key: str, value: bytes) -> bytes:
        return value

    def shared(self, value: Any) -> Any:
        return value


class Follower(Generic[Value]):
    """Delivers what is below `prefix` to `sink`, a commit a call; `run` it as a task.

    `reader` is called for each listing and each commit; what it makes reads values for the sink.
    All of them are synchronous and must not fail: an error ends `run`. `on_reset` is called after
    the new listing was delivered, with the keys that only the store of before had, and that store.
    """

    def __init__(
        self,
        registry: Registry,
        reader: Reader[Value],
        sink: Sink[Value],
        *,
        prefix: str = "",
        on_reset: Callable[[frozenset[str], Past], None] | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._reader = reader
        self._sink = sink
        self._prefix = prefix
        self._on_reset = on_reset
        self._pause = pause
        self._pause_s = FIRST_PAUSE_S
        self._store_id: str | None = None
        self._is_current = False
        self._revision = Revision(0)
        self._known = Known()
        self._resets = 0
        self._moved = Bell()

    @property
    def is_current(self) -> bool:
        """Whether the store has been listed and is watched just now, as far as is known."""
        return self._is_current and not self._registry.is_away

    def knows(self, key: str) -> bool:
        """Whether the store has this key, as far as it was followed."""
        return key in self._known

    def knows_any(self, folder: str) -> bool:
        """Whether the store has a key in this folder, as far as it was followed."""
        return self._known.has_any(folder)

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
    def store_id(self) -> str:
        """The store that is followed; "" before the first listing."""
        return self._store_id or ""

    @property
    def resets(self) -> int:
        """How often it went back in time, or was another one."""
        return self._resets

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
        self._catch_up(await self._whole_listing())
        self._is_current = True
        self._pause_s = FIRST_PAUSE_S
        watching = self._registry.watch(self._prefix, self._revision, self.store_id)
        async with aclosing(watching) as batches:
            async for batch in batches:
                read = self._reader()
                self._deliver(_changes(batch, read), batch.revision, read)

    async def _whole_listing(self) -> "_Listing[Value]":
        listing = await self._list()
        if listing.went_back and listing.is_part:
            listing = await self._list(went_back=True)
        return listing

    async def _list(self, *, went_back: bool = False) -> "_Listing[Value]":
        listing = _Listing(self._reader(), self._known, went_back=went_back)
        async with aclosing(self._registry.pages(self._prefix)) as pages:
            async for page in pages:
                listing.went_back |= self._is_of_another_past(page)
                listing.take(page)
        return listing

    def _is_of_another_past(self, page: Snapshot) -> bool:
        """Another store, or an earlier revision of ours."""
        if self._store_id is None:
            return False
        return page.store_id != self._store_id or page.revision < self._revision

    def _catch_up(self, listing: "_Listing[Value]") -> None:
        """Delivers how the listing differs from what is known. Await-free: one step of the view."""
        gone, past = listing.unseen, Past(self.store_id, self._revision)
        if listing.went_back:
            self._resets += 1
            self._known.clear()
        self._store_id = listing.store_id
        self._deliver(listing.changes(), listing.revision, listing.read)
        if listing.went_back and self._on_reset is not None:
            self._on_reset(frozenset(gone), past)

    def _deliver(
        self, changes: tuple[Change[Value], ...], revision: Revision, read: Read[Value]
    ) -> None:
        if changes:
            self._sink(changes)
        for change in changes:
            if change.value is None:
                self._known.drop(change.key)
            else:
                self._known.put(change.key, change.revision, read.shared)
        self._revision = revision
        self._moved.ring()


def _changes(batch: Batch, read: Read[Value]) -> tuple[Change[Value], ...]:
    return tuple(
        Change(it.key, None if it.value is None else read(it.key, it.value), it.revision)
        for it in batch.changes
    )


class _Listing(Generic[Value]):
    """How a listing differs from the keys and revisions that were known before.

    `went_back`: it is of another store, of an earlier revision, or has an older value of a key; all
    that it has is a change then. It `is_part` where something was left out before that was known.
    """

    def __init__(self, read: Read[Value], known: Known, *, went_back: bool = False) -> None:
        self.read = read
        self._known = known
        # Side by side, and made changes in the end: among the values, which stay, these would leave
        # as many holes when they go.
        self._folders: list[str] = []
        self._rests: list[str] = []
        self._revisions: list[Revision] = []
        self._values: list[Value] = []
        self.went_back = went_back
        self.is_part = False
        self.unseen = set(known)
        self.revision = Revision(0)
        self.store_id = ""

    def take(self, page: Snapshot) -> None:
        self.revision, self.store_id = page.revision, page.store_id
        for entry in page.entries:
            known = self._known.get(entry.key)
            self.unseen.discard(entry.key)
            self.went_back |= known is not None and entry.revision < known
            if entry.revision == known and not self.went_back:
                self.is_part = True
                continue
            self._values.append(self.read(entry.key, entry.value))
            folder, rest = split(entry.key)
            self._folders.append(self.read.shared(folder))
            self._rests.append(self.read.shared(rest))
            self._revisions.append(self.read.shared(entry.revision))

    def changes(self) -> tuple[Change[Value], ...]:
        """In the order of their revisions; deletions are the last, and none where it went back."""
        keys = map(operator.add, self._folders, self._rests)
        found = zip(keys, self._values, self._revisions, strict=True)
        puts = sorted((Change(*it) for it in found), key=operator.attrgetter("revision"))
        gone = [] if self.went_back else sorted(self.unseen)
        return (*puts, *(Change(key, None, self.revision) for key in gone))
