"""What a node says of itself stands in the store as long as the node lives, and no longer."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from mesh.agent.announce import KEEP_ALIVE_S, LEASE_S, Announcer
from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import MAX_OPS, Check, LeaseId, Op
from tests.support.engine import until
from tests.support.virtual_time import loop_time_s


class Store(MemoryRegistry):
    """A memory store that may be away, and that remembers its leases."""

    def __init__(self) -> None:
        super().__init__(clock=loop_time_s)
        self.leases: list[LeaseId] = []
        self.commits: list[int] = []
        self.is_away = False
        # How long the answer to a claim takes; it is decided before.
        self.answer_s = 0.0

    async def grant(self, ttl_s: float) -> LeaseId:
        self._reach()
        self.leases.append(await super().grant(ttl_s))
        return self.leases[-1]

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        self._reach()
        self.commits.append(len(ops))
        try:
            return await super().commit(ops, checks)
        finally:
            if checks:
                await asyncio.sleep(self.answer_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        self._reach()
        await super().keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        self._reach()
        await super().revoke(lease)

    async def end_lease(self) -> None:
        """As when it ran out."""
        await super().revoke(self.leases[-1])

    async def keys(self) -> dict[str, bytes]:
        return {entry.key: entry.value for entry in (await super().list("")).entries}

    def _reach(self) -> None:
        if self.is_away:
            raise Unavailable("the store is away")


@asynccontextmanager
async def announcing(store: Store) -> AsyncIterator[Announcer]:
    announcer = Announcer(store)
    running = asyncio.get_running_loop().create_task(announcer.run())
    try:
        yield announcer
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(60):
                await running


async def holds(store: Store, expected: dict[str, bytes], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while await store.keys() != expected:  # noqa: ASYNC110 - the store rings no bell
            await asyncio.sleep(0.01)


async def test_what_is_put_stands_and_what_is_dropped_does_not():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        announcer.put("b", b"1")
        await holds(store, {"a": b"1", "b": b"1"})
        announcer.put("a", b"2")
        announcer.drop("b")
        announcer.drop("never")
        await holds(store, {"a": b"2"})


async def test_same_value_again_is_not_written_again():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        await holds(store, {"a": b"1"})
        written = len(store.commits)
        announcer.put("a", b"1")
        await asyncio.sleep(1.0)
        assert len(store.commits) == written


async def test_changes_of_one_moment_are_one_commit_and_many_are_several():
    store = Store()
    async with announcing(store) as announcer:
        for n in range(MAX_OPS + 2):
            announcer.put(f"k{n:03}", b"1")
        announcer.drop("k000")
        await holds(store, {f"k{n:03}": b"1" for n in range(1, MAX_OPS + 2)})
        assert sum(store.commits) == MAX_OPS + 1
        assert len(store.commits) == 2


async def test_quiet_node_keeps_its_lease():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        await asyncio.sleep(10 * LEASE_S)
        assert await store.keys() == {"a": b"1"}
        assert len(store.leases) == 1


async def test_busy_node_keeps_its_lease():
    store = Store()
    async with announcing(store) as announcer:
        for n in range(200):
            announcer.put("a", str(n).encode())
            await asyncio.sleep(KEEP_ALIVE_S / 10)
        assert len(store.leases) == 1
        await holds(store, {"a": b"199"})


async def test_all_is_announced_again_after_the_lease_was_lost():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        announcer.put("b", b"1")
        announcer.drop("b")
        await holds(store, {"a": b"1"})
        await store.end_lease()
        assert await store.keys() == {}
        await holds(store, {"a": b"1"})
        assert len(store.leases) == 2


async def test_lease_lost_in_the_middle_of_a_change_loses_nothing():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        await holds(store, {"a": b"1"})
        await store.end_lease()
        announcer.put("b", b"1")
        await holds(store, {"a": b"1", "b": b"1"})


async def test_store_that_was_away_gets_all_that_is_wanted_by_then():
    store = Store()
    store.is_away = True
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        announcer.put("b", b"1")
        await asyncio.sleep(5 * LEASE_S)
        announcer.drop("b")
        store.is_away = False
        await holds(store, {"a": b"1"})


async def test_key_that_was_dropped_while_the_store_was_away_goes_with_the_old_lease():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        announcer.put("b", b"1")
        await holds(store, {"a": b"1", "b": b"1"})
        store.is_away = True
        announcer.drop("b")
        await asyncio.sleep(1.0)
        store.is_away = False
        await holds(store, {"a": b"1"}, within_s=2 * LEASE_S)


async def test_node_that_leaves_takes_its_keys_with_it():
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        await holds(store, {"a": b"1"})
    assert await store.keys() == {}


async def test_node_that_leaves_while_the_store_is_away_leaves_all_the_same():
    store = Store()
    announcer = Announcer(store)
    running = asyncio.get_running_loop().create_task(announcer.run())
    announcer.put("a", b"1")
    await holds(store, {"a": b"1"})
    store.is_away = True
    running.cancel()
    await until(running.done)
    assert running.cancelled()


@pytest.mark.parametrize("moment_s", [0.0, 0.001, KEEP_ALIVE_S])
async def test_node_that_leaves_at_any_moment_ends_its_lease(moment_s):
    store = Store()
    async with announcing(store) as announcer:
        announcer.put("a", b"1")
        await asyncio.sleep(moment_s)
    assert await store.keys() == {}


async def test_outage_is_told_once_and_the_next_one_again(caplog):
    store = Store()
    async with announcing(store):
        for _ in range(2):
            await asyncio.sleep(KEEP_ALIVE_S)
            store.is_away = True
            await asyncio.sleep(60)
            store.is_away = False
            await asyncio.sleep(1)
    told = [record for record in caplog.records if record.message == "announcing again"]
    assert len(told) == 2


async def test_claim_while_the_last_one_is_deleted_holds_and_leaves_nothing_behind():
    """The last one still stands when it is asked, and is then written again, not deleted."""
    store = Store()
    async with announcing(store) as announcer:
        await eventually_claims(announcer)
        store.answer_s = 0.1
        announcer.drop("claim")
        await announcer.claim("claim", b"own")
        announcer.drop("claim")
        await holds(store, {})


async def test_claim_of_another_node_is_refused_and_left_alone():
    store = Store()
    async with announcing(store) as announcer:
        await eventually_claims(announcer)
        with pytest.raises(Conflict):
            await announcer.claim("claim", b"another")
        await holds(store, {"claim": b"own"})


async def eventually_claims(announcer: Announcer) -> None:
    async with asyncio.timeout(5):
        while True:
            with suppress(Unavailable, Conflict):
                await announcer.claim("claim", b"own")
                return
            await asyncio.sleep(0.01)
