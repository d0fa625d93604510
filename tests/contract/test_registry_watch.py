"""What every store promises: watches, and compaction under them."""

import asyncio
from contextlib import aclosing

import pytest

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.port import (
    Compacted,
    Delete,
    Put,
)
from tests.contract.registry_stores import put, take, told


async def test_watch_yields_commits_in_order_and_of_prefix_only(registry):
    start = await put(registry, "x/0", b"before")
    await put(registry, "x/1", b"1")
    await put(registry, "y/1", b"other")
    await registry.commit([Put("y/2", b"other"), Put("x/2", b"2")])
    await registry.commit([Delete("x/1"), Delete("y/1")])
    batches = await take(registry, 3, after=start, prefix="x/")
    assert told(batches) == [[("x/1", b"1")], [("x/2", b"2")], [("x/1", None)]]
    assert start < batches[0].revision < batches[1].revision < batches[2].revision


async def test_watch_wakes_for_commits_that_come_later(registry):
    start = await put(registry, "a", b"0")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        watching = group.create_task(take(registry, 2, after=start))
        await asyncio.sleep(0)
        await put(registry, "a", b"1")
        await put(registry, "a", b"2")
        assert told(await watching) == [[("a", b"1")], [("a", b"2")]]


async def test_watch_after_future_revision_skips_what_is_before(registry):
    start = await put(registry, "a", b"0")
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        watching = group.create_task(take(registry, 1, after=Revision(start + 2)))
        await asyncio.sleep(0)
        while not watching.done():
            last = await put(registry, "a")
        [batch] = watching.result()
    assert start + 2 < batch.revision <= last


async def test_slow_watcher_holds_up_nobody(registry):
    start = await put(registry, "a", b"0")
    async with aclosing(registry.watch("", start)) as slow:
        await put(registry, "a", b"1")
        assert (await anext(slow)).changes[0].value == b"1"
        for i in range(100):
            await put(registry, "a", str(i).encode())
        assert len(await take(registry, 101, after=start)) == 101


async def test_watch_from_before_compaction_raises(store):
    start = await put(store.registry, "a", b"0")
    for i in range(3):
        await put(store.registry, "a", str(i).encode())
    await store.compact()
    with pytest.raises(Compacted):
        await take(store.registry, 1, after=start)


async def test_watch_from_last_commit_survives_compaction(store):
    for i in range(3):
        last = await put(store.registry, "a", str(i).encode())
    await store.compact()
    await put(store.registry, "a", b"new")
    assert told(await take(store.registry, 1, after=last)) == [[("a", b"new")]]


async def test_compaction_in_mid_watch_loses_nothing_silently(store):
    registry = store.registry
    start = await put(registry, "a", b"0")
    expected = [str(i).encode() for i in range(20)]
    seen: list[bytes | None] = []
    async with asyncio.timeout(10), aclosing(registry.watch("", start)) as batches:
        for value in expected[:10]:
            await put(registry, "a", value)
        seen.append((await anext(batches)).changes[0].value)
        for value in expected[10:]:
            await put(registry, "a", value)
        await store.compact()
        try:
            while len(seen) < len(expected):
                seen += [change.value for change in (await anext(batches)).changes]
        except Compacted:
            assert 1 <= len(seen) < len(expected)
    assert seen == expected[: len(seen)]


async def test_watch_of_the_store_that_was_listed_goes_on(registry):
    await put(registry, "a")
    snapshot = await registry.list("")
    await put(registry, "b")
    async with aclosing(registry.watch("", snapshot.revision, snapshot.store_id)) as batches:
        assert told([await anext(batches)]) == [[("b", b"")]]


async def test_watch_of_another_store_is_refused(registry):
    start = await put(registry, "a")
    await put(registry, "b")
    async with aclosing(registry.watch("", start, "another")) as batches:
        with pytest.raises(Unavailable):
            await anext(batches)


async def test_watch_misses_no_deletion_that_history_was_compacted_at(store):
    registry = store.registry
    start = await put(registry, "a", b"0")
    await registry.commit([Delete("a")])
    await store.compact()
    with pytest.raises(Compacted):
        await take(registry, 1, after=start)
