"""What every store promises: listing and watch together make a true view. Properties."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.registry.follow import AsBytes, Follower
from mesh.registry.port import (
    Change,
    Delete,
    Op,
    Put,
)
from tests.contract.registry_stores import Store, contents, put, take, told


class View:
    """What a follower was told, added up."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.changes: list[Change] = []

    def take(self, changes: tuple[Change, ...]) -> None:
        self.changes += changes
        for change in changes:
            if change.value is None:
                del self.values[change.key]
            else:
                self.values[change.key] = change.value


KEYS = st.sampled_from(["a", "a/b", "a/c", "b", "c"])
VALUES = st.binary(max_size=2)
OPS = st.one_of(st.builds(Put, KEYS, VALUES), st.builds(Delete, KEYS))
COMMITS = st.lists(OPS, max_size=3, unique_by=lambda op: op.key)
# What happens in one burst, before any follower gets to run; None stands for a compaction.
BURSTS = st.lists(st.lists(st.one_of(COMMITS, st.none()), max_size=4), max_size=8)


async def unleash(store: Store, burst: list[list[Op] | None]) -> None:
    async with asyncio.TaskGroup() as group:
        for ops in burst:
            group.create_task(store.compact() if ops is None else store.registry.commit(ops))


@given(before=COMMITS, bursts=BURSTS, prefix=st.sampled_from(["", "a/"]))
@settings(max_examples=150, deadline=None)
async def test_followers_view_equals_store_after_any_commits_and_compactions(
    open_store, before, bursts, prefix
):
    view = View()
    async with asyncio.timeout(30), open_store() as store, asyncio.TaskGroup() as group:
        await store.registry.commit(before)
        follower = Follower(store.registry, AsBytes, view.take, prefix=prefix)
        following = group.create_task(follower.run())
        await follower.wait_synced()
        for burst in bursts:
            await unleash(store, burst)
        await follower.caught_up(await put(store.registry, prefix + "last", b"end"))
        assert view.values == await contents(store.registry, prefix)
        following.cancel()


@given(before=COMMITS, commits=st.lists(COMMITS, max_size=10))
@settings(max_examples=100, deadline=None)
async def test_listing_and_watch_see_each_change_exactly_once(open_store, before, commits):
    made: dict[int, set[tuple[str, bytes | None]]] = {}
    async with open_store() as store:
        await store.registry.commit(before)
        snapshot = await store.registry.list("")
        have = {entry.key for entry in snapshot.entries}
        for ops in [*commits, [Put("last", b"end")]]:
            changes = {(op.key, getattr(op, "value", None)) for op in ops}
            changes = {(key, value) for key, value in changes if value is not None or key in have}
            have = have.union(key for key, _ in changes) - {key for key, v in changes if v is None}
            revision = await store.registry.commit(ops)
            made |= {revision: changes} if changes else {}
        batches = await take(store.registry, len(made), after=snapshot.revision)
    assert [batch.revision for batch in batches] == sorted(made)
    for batch, changes in zip(told(batches), made.values(), strict=True):
        assert len(batch) == len(changes)
        assert set(batch) == changes
