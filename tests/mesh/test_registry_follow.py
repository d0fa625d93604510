"""The follower when things go wrong: outages, compaction, a store that went back in time.

The store here reads its lines from a script: what each listing answers, what each watch yields.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.follow import AsBytes, Follower, Past
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Batch, Change, Compacted, Entry, Put, Registry, Snapshot
from tests.support.virtual_time import VirtualLoop

DOWN = Unavailable("down")
COMPACTED = Compacted(Revision(0))

Line = Snapshot | Batch | Exception | list[Snapshot | Exception]


class ScriptedStore:
    """A listing takes one line, or each of several pages; a watch all lines up to an error; at the
    end of them it waits.
    """

    def __init__(self, *script: Line) -> None:
        self._script = deque(script)
        self.watched_after: list[Revision] = []
        self.ended = asyncio.Event()
        self.is_away = False

    async def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        line = self._script.popleft()
        for page in line if isinstance(line, list) else [line]:
            if isinstance(page, Exception):
                raise page
            assert isinstance(page, Snapshot)
            yield page

    async def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        self.watched_after.append(after)
        while self._script:
            line = self._script.popleft()
            if isinstance(line, Exception):
                raise line
            assert isinstance(line, Batch)
            yield line
        self.ended.set()
        await asyncio.Event().wait()


class Told:
    """All that a follower told anybody."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, bytes | None, int]]] = []
        self.resets: list[set[str]] = []
        self.pasts: list[tuple[str, int]] = []
        self.pauses_s: list[float] = []

    def sink(self, changes: tuple[Change, ...]) -> None:
        self.calls.append([(change.key, change.value, change.revision) for change in changes])

    def on_reset(self, missing: frozenset[str], past: Past) -> None:
        self.resets.append(set(missing))
        self.pasts.append((past.store_id, past.revision))

    async def pause(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)


def listing(revision: int, store_id: str = "one", **revisions: int) -> Snapshot:
    """Each key at its revision; its value is that number."""
    entries = [Entry(key, str(at).encode(), Revision(at)) for key, at in revisions.items()]
    return Snapshot(tuple(entries), Revision(revision), store_id)


def commit(revision: int, *keys: str, deleted: tuple[str, ...] = ()) -> Batch:
    at, value = Revision(revision), str(revision).encode()
    puts = [Change(key, value, at) for key in keys]
    return Batch((*puts, *(Change(key, None, at) for key in deleted)), at)


@asynccontextmanager
async def following(store: ScriptedStore, told: Told) -> AsyncIterator[Follower]:
    """A follower that has read the script to its end."""
    follower = Follower(
        cast(Registry, store), AsBytes, told.sink, on_reset=told.on_reset, pause=told.pause
    )
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(follower.run())
        await store.ended.wait()
        yield follower
        task.cancel()


async def played(*script: Line) -> tuple[Told, ScriptedStore]:
    told, store = Told(), ScriptedStore(*script)
    async with following(store, told):
        pass
    return told, store


async def test_listing_comes_as_one_call_in_order_of_revisions_then_a_call_a_commit():
    told, store = await played(listing(7, a=5, b=3), commit(8, "c", deleted=("a",)), commit(9, "c"))
    assert told.calls == [
        [("b", b"3", 3), ("a", b"5", 5)],
        [("c", b"8", 8), ("a", None, 8)],
        [("c", b"9", 9)],
    ]
    assert store.watched_after == [7]
    assert told.resets == []


async def test_compaction_delivers_only_the_differences():
    told, store = await played(
        listing(7, same=1, changed=2, gone=3),
        commit(8, "late", "short"),
        COMPACTED,
        listing(20, same=1, changed=15, late=8, new=12),
    )
    assert told.calls[2:] == [
        [("new", b"12", 12), ("changed", b"15", 15), ("gone", None, 20), ("short", None, 20)]
    ]
    assert store.watched_after == [7, 20]
    assert (told.resets, told.pauses_s) == ([], [])


async def test_listing_that_differs_in_nothing_tells_nothing():
    told, _ = await played(listing(7, a=5), DOWN, listing(9, a=5), COMPACTED, listing(9, a=5))
    assert told.calls == [[("a", b"5", 5)]]


async def test_outage_keeps_the_view_and_pauses_longer_each_time_up_to_a_second():
    told, _ = await played(listing(7, a=5), DOWN, DOWN, DOWN, DOWN, DOWN, DOWN, listing(8, b=8))
    assert told.calls == [[("a", b"5", 5)], [("b", b"8", 8), ("a", None, 8)]]
    assert told.pauses_s == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


async def test_pauses_begin_anew_after_a_listing():
    told, _ = await played(DOWN, DOWN, listing(7), DOWN, listing(7))
    assert told.pauses_s == [0.1, 0.2, 0.1]


@pytest.mark.parametrize(
    "after_return",
    [
        listing(30, "two", b=20),
        listing(6, "one", b=6),
        listing(30, "one", b=2),
    ],
    ids=["another store", "earlier revision", "older value"],
)
async def test_store_that_went_back_deletes_nothing_and_names_what_it_lacks(after_return):
    told, store = await played(listing(7, a=5, b=6), DOWN, after_return)
    assert [[key for key, *_ in call] for call in told.calls] == [["a", "b"], ["b"]]
    assert told.resets == [{"a"}]
    assert told.pasts == [("one", 7)]
    assert store.watched_after == [7, after_return.revision]


async def test_pages_are_one_listing():
    told, store = await played(
        [listing(7, a=5, b=3), listing(7, c=4), listing(7)],
        COMPACTED,
        [listing(9, a=5, b=3), listing(9, d=8)],
    )
    assert told.calls == [
        [("b", b"3", 3), ("c", b"4", 4), ("a", b"5", 5)],
        [("d", b"8", 8), ("c", None, 9)],
    ]
    assert store.watched_after == [7, 9]


@pytest.mark.parametrize("failure", [DOWN, COMPACTED], ids=["down", "compacted"])
async def test_listing_that_breaks_off_tells_nothing_and_is_made_again(failure):
    told, _ = await played(listing(7, a=5), DOWN, [listing(9, b=9), failure], listing(9, a=5, b=9))
    assert told.calls[1:] == [[("b", b"9", 9)]]


async def test_older_value_on_a_late_page_lists_all_of_it_again():
    told, _ = await played(
        listing(7, a=5, b=6),
        DOWN,
        [listing(30, a=5), listing(30, b=2)],
        [listing(31, a=5), listing(31, b=2, c=31)],
    )
    assert told.calls[1:] == [[("b", b"2", 2), ("a", b"5", 5), ("c", b"31", 31)]]
    assert told.resets == [set()]


async def test_key_that_a_reset_store_lacked_is_not_deleted_by_a_later_listing():
    told, _ = await played(
        listing(7, a=5, b=6), DOWN, listing(1, "two"), COMPACTED, listing(3, "two", c=3)
    )
    assert told.calls == [[("a", b"5", 5), ("b", b"6", 6)], [("c", b"3", 3)]]
    assert told.resets == [{"a", "b"}]


async def test_deletions_after_a_reset_are_delivered_again():
    told, _ = await played(listing(7, a=5), DOWN, listing(2, "two", a=2), commit(3, deleted=("a",)))
    assert told.calls[2:] == [[("a", None, 3)]]


async def test_same_revision_of_another_store_is_told_anew():
    told, _ = await played(listing(7, a=5), DOWN, listing(7, "two", a=5))
    assert len(told.calls) == 2


async def test_mark_moves_the_revision_without_a_call():
    told, store = Told(), ScriptedStore(listing(7, a=5), Batch((), Revision(12)))
    async with following(store, told) as follower:
        await follower.caught_up(Revision(12))
        assert follower.revision == 12
    assert len(told.calls) == 1


async def test_wait_synced_ends_with_the_first_listing_even_when_it_is_empty():
    registry, told = MemoryRegistry(), Told()
    follower = Follower(registry, AsBytes, told.sink)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(follower.wait_synced())
        await asyncio.sleep(0)
        assert not waiting.done()
        running = group.create_task(follower.run())
        await waiting
        running.cancel()
    assert told.calls == []


async def test_caught_up_waits_until_the_sink_has_the_revision():
    registry, told = MemoryRegistry(), Told()
    follower = Follower(registry, AsBytes, told.sink)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(follower.run())
        await follower.wait_synced()
        waiting = group.create_task(follower.caught_up(Revision(follower.revision + 2)))
        await registry.commit([Put("a", b"")])
        await asyncio.sleep(0)
        assert not waiting.done()
        revision = await registry.commit([Put("b", b"")])
        await waiting
        assert told.calls[-1] == [("b", b"", revision)]
        running.cancel()


async def test_caught_up_returns_when_the_store_goes_back_in_time():
    told, gate = Told(), asyncio.Event()

    async def pause(_: float) -> None:
        await gate.wait()

    store = ScriptedStore(listing(7, a=5), DOWN, listing(2, "two", b=2))
    follower = Follower(cast(Registry, store), AsBytes, told.sink, pause=pause)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(follower.run())
        await follower.wait_synced()
        waiting = group.create_task(follower.caught_up(Revision(8)))
        await asyncio.sleep(0)
        assert not waiting.done()
        gate.set()
        await waiting
        assert told.calls[-1] == [("b", b"2", 2)]
        running.cancel()


def test_caught_up_gives_up_on_a_revision_that_never_comes():
    async def wait() -> None:
        with pytest.raises(Unavailable, match="revision 9 of the store was not seen in 30 s"):
            await Follower(MemoryRegistry(), AsBytes, Told().sink).caught_up(Revision(9))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(wait())


async def test_follower_is_current_only_while_its_store_is_there():
    told, store = Told(), ScriptedStore(listing(7, a=5))
    assert not Follower(cast(Registry, store), AsBytes, told.sink).is_current
    async with following(store, told) as follower:
        assert follower.is_current
        store.is_away = True
        assert not follower.is_current


async def test_follower_of_a_prefix_catches_up_with_commits_elsewhere():
    registry, told = MemoryRegistry(), Told()
    follower = Follower(registry, AsBytes, told.sink, prefix="quiet/")
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(follower.run())
        await follower.wait_synced()
        await follower.caught_up(await registry.commit([Put("noise", b"")]))
        running.cancel()
    assert told.calls == []


async def test_error_of_the_sink_ends_the_run():
    def refuse(changes: tuple[Change, ...]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Follower(MemoryRegistry(initial={"a": b""}), AsBytes, refuse).run()
