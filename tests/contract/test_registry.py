"""What every store promises: keys, commits and their checks.

Nothing in this suite counts on revisions without gaps: others may write to the same server.
"""

import asyncio

import pytest

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.port import (
    MAX_OPS,
    Absent,
    Delete,
    Exists,
    Put,
    Unchanged,
)
from tests.contract.registry_stores import contents, put, take, told


async def test_get_after_commit_sees_value_and_revision(registry):
    revision = await put(registry, "a", b"1")
    entry = await registry.get("a")
    assert (entry.key, entry.value, entry.revision) == ("a", b"1", revision)


async def test_get_of_absent_key_is_none(registry):
    assert await registry.get("nowhere") is None


async def test_list_is_filtered_by_prefix_and_sorted(registry):
    for key in ("models/b", "models/a", "model", "nodes/a"):
        await put(registry, key, key.encode())
    snapshot = await registry.list("models/")
    assert [entry.key for entry in snapshot.entries] == ["models/a", "models/b"]


async def test_list_names_store_and_revision_of_last_commit(registry):
    revision = await put(registry, "a")
    first, second = await registry.list(""), await registry.list("zzz")
    assert first.revision == second.revision == revision
    assert first.store_id == second.store_id != ""


async def test_revision_of_entry_is_that_of_its_own_last_put(registry):
    first = await put(registry, "a")
    second = await put(registry, "b")
    assert second > first
    assert [entry.revision for entry in (await registry.list("")).entries] == [first, second]


async def test_commit_of_several_keys_is_one_batch(registry):
    start = await put(registry, "old", b"0")
    revision = await registry.commit([Put("a", b"1"), Delete("old"), Put("b", b"2")])
    await put(registry, "c", b"3")
    batches = await take(registry, 2, after=start)
    assert sorted(told(batches)[0]) == [("a", b"1"), ("b", b"2"), ("old", None)]
    assert {change.revision for change in batches[0].changes} == {revision} == {batches[0].revision}
    assert told(batches)[1] == [("c", b"3")]


async def test_put_of_same_value_is_a_change(registry):
    first = await put(registry, "a", b"1")
    assert await put(registry, "a", b"1") > first
    assert told(await take(registry, 1, after=first)) == [[("a", b"1")]]


async def test_delete_of_absent_key_changes_nothing(registry):
    before = await put(registry, "a")
    assert await registry.commit([Delete("nowhere")]) == before
    await put(registry, "b")
    assert told(await take(registry, 1, after=before)) == [[("b", b"")]]


HOLDING = [
    [],
    [Absent("absent")],
    [Exists("first")],
    [Unchanged("first", Revision(0))],
    [Exists("second"), Unchanged("second", Revision(0)), Absent("absent")],
]
FAILING = [
    ([Absent("first")], "first"),
    ([Exists("absent")], "absent"),
    ([Unchanged("first", Revision(-1))], "first"),
    ([Unchanged("first", Revision(1))], "first"),
    ([Unchanged("absent", Revision(0))], "absent"),
    ([Exists("first"), Absent("second"), Exists("absent")], "second"),
]


def rebased(checks, base: Revision):
    """Revisions above are written relative to that of the two keys."""
    return [
        Unchanged(check.key, Revision(base + check.revision))
        if isinstance(check, Unchanged)
        else check
        for check in checks
    ]


@pytest.mark.parametrize("checks", HOLDING, ids=str)
async def test_commit_with_checks_that_hold_is_carried_out(registry, checks):
    base = await registry.commit([Put("first", b""), Put("second", b"")])
    await registry.commit([Put("new", b"1")], rebased(checks, base))
    assert (await contents(registry))["new"] == b"1"


@pytest.mark.parametrize(("checks", "failed"), FAILING, ids=str)
async def test_commit_with_failing_check_names_first_key_and_changes_nothing(
    registry, checks, failed
):
    base = await registry.commit([Put("first", b""), Put("second", b"")])
    with pytest.raises(Conflict) as conflict:
        await registry.commit([Put("new", b"1"), Delete("first")], rebased(checks, base))
    assert conflict.value.key == failed
    assert await contents(registry) == {"first": b"", "second": b""}
    assert (await registry.list("")).revision == base


@pytest.mark.parametrize(
    ("ops", "checks"),
    [
        ([Put("a", b"1"), Delete("a")], []),
        ([Put("", b"1")], []),
        ([], [Exists("")]),
        ([Put("\ud800", b"1")], []),
        ([Put(f"k{i}", b"") for i in range(MAX_OPS + 1)], []),
        ([], [Absent(f"k{i}") for i in range(MAX_OPS + 1)]),
    ],
    ids=["key twice", "empty key", "empty check", "no text", "many ops", "many checks"],
)
async def test_malformed_commit_is_refused(registry, ops, checks):
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeEncodeError is one, with its own text
        await registry.commit(ops, checks)
    assert await contents(registry) == {}


async def test_largest_commit_is_carried_out(registry):
    await registry.commit([Put(f"k{i}", b"") for i in range(MAX_OPS)])
    assert len(await contents(registry)) == MAX_OPS


async def test_fifty_concurrent_increments_are_all_counted(registry):
    await put(registry, "count", b"0")
    conflicts = 0

    async def increment() -> None:
        nonlocal conflicts
        while True:
            entry = await registry.get("count")
            await asyncio.sleep(0)
            more = str(int(entry.value) + 1).encode()
            try:
                await registry.commit([Put("count", more)], [Unchanged("count", entry.revision)])
            except Conflict:
                conflicts += 1
            else:
                return

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(increment())
    assert await contents(registry) == {"count": b"50"}
    assert conflicts > 0


async def test_concurrent_transfers_between_keys_keep_the_sum(registry):
    keys = [f"account{i}" for i in range(4)]
    start = await registry.commit([Put(key, b"10") for key in keys])

    async def transfer(source: str, target: str) -> None:
        one, other = await registry.get(source), await registry.get(target)
        await asyncio.sleep(0)
        moved = [
            Put(source, str(int(one.value) - 1).encode()),
            Put(target, str(int(other.value) + 1).encode()),
        ]
        checks = [Unchanged(source, one.revision), Unchanged(target, other.revision)]
        try:
            await registry.commit(moved, checks)
        except Conflict:
            await transfer(source, target)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for i in range(20):
            group.create_task(transfer(keys[i % 4], keys[(i + 1 + i // 4 % 3) % 4]))
    view = dict.fromkeys(keys, 10)
    for batch in await take(registry, 20, after=start):
        view |= {change.key: int(change.value or b"") for change in batch.changes}
        assert sum(view.values()) == 40
    assert {key: int(value) for key, value in (await contents(registry)).items()} == view


async def test_closed_store_is_unavailable_and_ends_watches(registry):
    start = await put(registry, "a")

    async def watch_to_the_end() -> None:
        with pytest.raises(Unavailable):
            await take(registry, 1, after=start)

    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(watch_to_the_end())
        await asyncio.sleep(0)
        await registry.close()
    with pytest.raises(Unavailable):
        await put(registry, "a")


async def test_store_is_there_until_it_is_closed(registry):
    await put(registry, "a")
    assert not registry.is_away
    await registry.close()
    assert registry.is_away
