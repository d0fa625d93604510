"""What every store promises: leases."""

import asyncio

import pytest

from mesh.core.errors import Conflict
from mesh.registry.port import (
    Delete,
    Exists,
    LeaseId,
    LeaseLost,
    Put,
)
from tests.contract.registry_stores import contents, put, take, told


async def test_end_of_lease_deletes_its_keys_in_one_commit_and_wakes_watchers(store):
    registry = store.registry
    lease = await registry.grant(store.ttl_s)
    await put(registry, "lasting")
    start = await registry.commit([Put("a", b"1", lease), Put("b", b"2", lease)])
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watching = group.create_task(take(registry, 1, after=start))
        await asyncio.sleep(0)
        await store.pass_time(store.ttl_s)
        [batch] = await watching
    assert sorted(told([batch])[0]) == [("a", None), ("b", None)]
    assert await contents(registry) == {"lasting": b""}


async def test_lease_kept_alive_outlives_its_time_and_then_ends(store):
    registry = store.registry
    lease = await registry.grant(store.ttl_s)
    revision = await put(registry, "a", b"1", lease)
    for _ in range(3):
        await store.pass_time(0.6 * store.ttl_s)
        await registry.keep_alive(lease)
    assert await contents(registry) == {"a": b"1"}
    await store.pass_time(store.ttl_s)
    assert told(await take(registry, 1, after=revision)) == [[("a", None)]]


async def test_lease_that_ended_is_lost(store):
    registry = store.registry
    lease = await registry.grant(store.ttl_s)
    revision = await put(registry, "a", b"1", lease)
    await store.pass_time(store.ttl_s)
    await take(registry, 1, after=revision)
    with pytest.raises(LeaseLost):
        await registry.keep_alive(lease)
    with pytest.raises(LeaseLost):
        await registry.commit([Put("b", b""), Put("c", b"", lease)])
    assert await contents(registry) == {}


async def test_lease_never_granted_is_lost(registry):
    with pytest.raises(LeaseLost) as lost:
        await put(registry, "a", b"", LeaseId(4711))
    assert lost.value.lease == 4711
    with pytest.raises(LeaseLost):
        await registry.keep_alive(LeaseId(4711))


async def test_conflict_goes_before_lost_lease(registry):
    with pytest.raises(Conflict):
        await registry.commit([Put("a", b"", LeaseId(4711))], [Exists("nowhere")])


async def test_revoked_lease_deletes_its_keys_in_one_commit(store):
    registry = store.registry
    mine, other = await registry.grant(store.ttl_s), await registry.grant(store.ttl_s)
    await put(registry, "other", b"", other)
    start = await registry.commit([Put("a", b"1", mine), Put("b", b"2", mine)])
    await registry.revoke(mine)
    assert await contents(registry) == {"other": b""}
    [batch] = await take(registry, 1, after=start)
    assert sorted(told([batch])[0]) == [("a", None), ("b", None)]
    with pytest.raises(LeaseLost):
        await registry.keep_alive(mine)
    await registry.revoke(mine)
    await registry.keep_alive(other)


async def test_key_belongs_to_lease_of_its_last_put(store):
    registry = store.registry
    first, second = await registry.grant(store.ttl_s), await registry.grant(store.ttl_s)
    for key in ("freed", "moved", "deleted"):
        await put(registry, key, b"1", first)
    await put(registry, "freed", b"2")
    await put(registry, "moved", b"2", second)
    await registry.commit([Delete("deleted")])
    await put(registry, "deleted", b"2")
    await registry.revoke(first)
    assert await contents(registry) == {"freed": b"2", "moved": b"2", "deleted": b"2"}
    await registry.revoke(second)
    assert await contents(registry) == {"freed": b"2", "deleted": b"2"}
