"""The memory store beyond the contract: bounds, its timer, and turns at the journal."""

import asyncio
import itertools
import threading
from contextlib import aclosing

import pytest

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.journal import Changes
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import (
    Absent,
    Batch,
    Check,
    Compacted,
    Delete,
    Exists,
    LeaseId,
    LeaseLost,
    Op,
    Put,
)


class GatedJournal:
    """Keeps what is below `kept/`, each write once the gate is open; fails while `failing`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.failing = False
        self.written: list[dict[str, bytes | None]] = []
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()

    def concerns(self, key: str) -> bool:
        return key.startswith("kept/")

    def load(self) -> dict[str, bytes]:
        return {}

    def write(self, changes: Changes) -> None:
        self._loop.call_soon_threadsafe(self._begun.set)
        assert self.gate.wait(5)
        if self.failing:
            raise Unavailable("disk full")
        self.written.append(dict(changes))

    async def begun(self) -> None:
        async with asyncio.timeout(5):
            await self._begun.wait()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def keys(registry: MemoryRegistry) -> list[str]:
    return [entry.key for entry in (await registry.list("")).entries]


async def first_batch(registry: MemoryRegistry, after: Revision) -> Batch:
    async with asyncio.timeout(5), aclosing(registry.watch("", after)) as batches:
        return await anext(batches)


async def committing(
    registry: MemoryRegistry, group: asyncio.TaskGroup, *ops: Op
) -> asyncio.Task[Revision]:
    """A commit that has been handed in."""
    task = group.create_task(registry.commit(ops))
    await asyncio.sleep(0)
    return task


async def conflicting(registry: MemoryRegistry, op: Op, check: Check) -> None:
    with pytest.raises(Conflict):
        await registry.commit([op], [check])


async def test_initial_entries_are_listed_and_watched():
    registry = MemoryRegistry(initial={"a": b"1"})
    assert await keys(registry) == ["a"]
    assert (await first_batch(registry, Revision(0))).changes[0].value == b"1"


async def test_two_stores_have_different_ids():
    ids = {(await MemoryRegistry().list("")).store_id for _ in range(2)}
    assert len(ids) == 2


async def test_watcher_that_lags_more_than_the_history_gets_compacted():
    registry = MemoryRegistry(history=3)
    start = await registry.commit([Put("a", b"")])
    async with aclosing(registry.watch("", start)) as batches:
        for _ in range(3):
            await registry.commit([Put("a", b"")])
        assert (await anext(batches)).revision == start + 1
        for _ in range(2):
            await registry.commit([Put("a", b"")])
        with pytest.raises(Compacted):
            await anext(batches)


async def test_watcher_of_a_quiet_prefix_is_not_compacted_by_other_commits():
    registry = MemoryRegistry(history=3)
    start = await registry.commit([Put("a", b"")])
    seen: list[Batch] = []

    async def watch() -> None:
        async with aclosing(registry.watch("quiet/", start)) as batches:
            async for batch in batches:
                seen.append(batch)
                if batch.changes:
                    return

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(watch())
        for _ in range(20):
            await registry.commit([Put("noise", b"")])
        revision = await registry.commit([Put("quiet/a", b"")])
    assert (seen[-1].revision, len(seen[-1].changes)) == (revision, 1)
    assert [batch.revision for batch in seen] == sorted({batch.revision for batch in seen})


async def test_history_is_bounded():
    registry = MemoryRegistry(history=3)
    for _ in range(100):
        await registry.commit([Put("a", b"")])
    with pytest.raises(Compacted):
        await first_batch(registry, Revision(97))
    assert (await first_batch(registry, Revision(98))).revision == 99


async def test_lease_runs_out_by_the_timer_alone():
    registry = MemoryRegistry()
    kept, lost = await registry.grant(60), await registry.grant(0.02)
    start = await registry.commit([Put("lost", b"", lost), Put("kept", b"", kept)])
    batch = await first_batch(registry, start)
    assert [(change.key, change.value) for change in batch.changes] == [("lost", None)]
    await registry.close()


async def test_lease_kept_alive_past_its_timer_runs_out_by_a_later_one():
    ticks = itertools.count()  # A slow clock: timers of the loop come early and must set anew.
    registry = MemoryRegistry(clock=lambda: next(ticks) / 1000)
    lease = await registry.grant(0.02)
    start = await registry.commit([Put("a", b"", lease)])
    await registry.keep_alive(lease)
    assert (await first_batch(registry, start)).changes[0].value is None
    await registry.close()


async def test_commit_answers_only_when_the_journal_has_it():
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = await committing(registry, group, Put("kept/a", b"1"), Put("b", b"2"))
        await journal.begun()
        assert await keys(registry) == []
        assert not task.done()
        journal.gate.set()
        assert await task == (await registry.list("")).revision
    assert await keys(registry) == ["b", "kept/a"]
    assert journal.written == [{"kept/a": b"1"}]


async def test_commits_keep_their_order_behind_the_journal():
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        tasks = [
            await committing(registry, group, Put(key, value))
            for key, value in [("kept/a", b"1"), ("other", b"2"), ("kept/a", b"3"), ("other", b"4")]
        ]
        journal.gate.set()
        revisions = [await task for task in tasks]
    assert revisions == sorted(set(revisions))
    assert journal.written == [{"kept/a": b"1"}, {"kept/a": b"3"}]
    entries = (await registry.list("")).entries
    assert {entry.key: entry.value for entry in entries} == {"kept/a": b"3", "other": b"4"}


async def test_checks_hold_when_the_commit_is_applied_not_only_before_the_journal():
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        first = group.create_task(registry.commit([Put("kept/a", b"1")], [Absent("b")]))
        await journal.begun()
        group.create_task(conflicting(registry, Put("b", b"2"), Absent("kept/a")))
        await asyncio.sleep(0)
        journal.gate.set()
        await first
    assert await keys(registry) == ["kept/a"]


async def test_failing_journal_changes_nothing_and_the_next_commit_works():
    journal = GatedJournal()
    journal.gate.set()
    registry = MemoryRegistry(journal=journal)
    revision = await registry.commit([Put("kept/a", b"1")])
    journal.failing = True
    with pytest.raises(Unavailable, match="disk full"):
        await registry.commit([Delete("kept/a"), Put("b", b"")])
    assert await keys(registry) == ["kept/a"]
    assert (await registry.list("")).revision == revision
    journal.failing = False
    assert await registry.commit([Delete("kept/a")], [Exists("kept/a")]) == revision + 1
    assert journal.written == [{"kept/a": b"1"}, {"kept/a": None}]


async def test_commit_cancelled_during_the_journal_is_applied_all_the_same():
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = await committing(registry, group, Put("kept/a", b"1"))
        waiting = await committing(registry, group, Put("kept/b", b"1"))
        await journal.begun()
        task.cancel()
        waiting.cancel()
        await asyncio.wait({task, waiting})
        journal.gate.set()
        await registry.commit([Put("c", b"")])
    assert journal.written == [{"kept/a": b"1"}]
    assert await keys(registry) == ["c", "kept/a"]


async def test_lease_does_not_run_out_while_a_commit_under_it_is_being_stored():
    clock, journal = Clock(), GatedJournal()
    registry = MemoryRegistry(clock=clock, journal=journal)
    lease = await registry.grant(10)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = await committing(registry, group, Put("kept/a", b"1"), Put("b", b"", lease))
        await journal.begun()
        clock.now_s = 11
        with pytest.raises(LeaseLost):
            await registry.keep_alive(lease)
        journal.gate.set()
        stored = await task
    assert await keys(registry) == ["kept/a"]
    assert (await registry.list("")).revision == stored + 1


async def test_lease_revoked_during_a_turn_ends_after_it():
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    lease = await registry.grant(10)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        await committing(registry, group, Put("kept/a", b"1"), Put("b", b"", lease))
        await journal.begun()
        revoking = group.create_task(registry.revoke(lease))
        await asyncio.sleep(0)
        assert not revoking.done()
        journal.gate.set()
        await revoking
        assert await keys(registry) == ["kept/a"]


async def test_journal_keeps_nothing_of_a_leased_key():
    journal = GatedJournal()
    journal.gate.set()
    registry = MemoryRegistry(journal=journal)
    lease = await registry.grant(10)
    await registry.commit([Put("kept/a", b"1")])
    await registry.commit([Put("kept/a", b"2", lease)])
    await registry.revoke(lease)
    assert journal.written == [{"kept/a": b"1"}, {"kept/a": None}]
    assert await keys(registry) == []


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_close_finishes_what_the_journal_has_begun(is_cancelled):
    journal = GatedJournal()
    registry = MemoryRegistry(journal=journal)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = await committing(registry, group, Put("kept/a", b"1"))
        await journal.begun()
        closing = group.create_task(registry.close())
        await asyncio.sleep(0)
        if is_cancelled:
            task.cancel()
        assert not closing.done()
        journal.gate.set()
        await closing
    assert journal.written == [{"kept/a": b"1"}]


async def test_journalled_commit_under_unknown_lease_is_lost_and_not_stored():
    journal = GatedJournal()
    journal.gate.set()
    registry = MemoryRegistry(journal=journal)
    with pytest.raises(LeaseLost):
        await registry.commit([Put("kept/a", b""), Put("b", b"", LeaseId(7))])
    assert journal.written == []
