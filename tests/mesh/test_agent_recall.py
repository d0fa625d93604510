"""A store that lost data is filled by those who had seen most of it, whoever else comes first."""

import asyncio

import pytest

from mesh.agent.recall import ALL_S, RANK_S, decode, encode
from mesh.agent.seeded import until_seeded
from mesh.core.ids import PredictorName, Revision
from mesh.registry.follow import Past
from mesh.registry.port import Put
from mesh.wire.records import RECALLS, SEEDED
from tests.support.engine import engine, until
from tests.support.fickle_mesh import NODES, changed_behind_the_back_of, stand
from tests.support.virtual_time import loop_time_s

each_node = pytest.mark.parametrize("stale", range(NODES))


@each_node
@pytest.mark.parametrize("late_s", [0.0, 1.0, ALL_S + 1, 40.0])
async def test_node_that_stood_still_brings_nothing_of_before_back(stale: int, late_s: float):
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, stale)
        await s.store.wipe()
        await asyncio.sleep(late_s)
        s.resume(stale)
        await s.settle(expected)


@each_node
async def test_store_set_back_to_a_backup_gets_what_came_later_but_not_what_went(stale: int):
    async with stand() as s:
        backup = await s.store.list("mesh/")
        expected = await changed_behind_the_back_of(s, stale)
        await s.store.restore(backup)
        s.resume(stale)
        await s.settle(expected)


async def test_node_that_stands_still_delays_the_others_but_for_a_while():
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, 0)
        await s.store.wipe()
        await asyncio.sleep(ALL_S + NODES * RANK_S + 1)
        assert await s.stored() == expected.keys()
        assert await s.store.get(SEEDED) is not None


async def test_node_that_had_seen_most_and_died_is_not_waited_for():
    async with stand() as s:
        expected = {"p": await s.nodes[0].apply("p", "a")}
        past = Past(s.nodes[0].node.follower._store_id or "", Revision(10_000))
        await s.store.wipe()
        await s.store.commit([Put(f"{RECALLS}dead", encode(past))])
        await s.settle(expected)


async def test_what_only_the_stale_node_has_seen_comes_back_where_the_others_are_gone():
    async with stand() as s:
        expected = {"p": await s.nodes[0].apply("p", "a")}
        await until(lambda: all("p" in node.node.view.predictors for node in s.nodes))
        for number in (1, 2):
            s.freeze(number)
        await s.store.wipe()
        await asyncio.sleep(60)
        assert await s.stored() == expected.keys()
        for number in (1, 2):
            s.resume(number)
        await s.settle(expected)


async def test_those_who_had_seen_more_add_to_what_one_alone_has_filled():
    """What it wrote stands, though it is of before; who comes after them is told that they knew."""
    async with stand() as s:
        await changed_behind_the_back_of(s, 0)
        s.freeze(1)
        s.freeze(2)
        await s.store.wipe()
        s.resume(0)
        await asyncio.sleep(60)
        assert await s.stored() == {"updated", "deleted"}
        before = await s.mark()
        s.resume(1)
        s.resume(2)
        await asyncio.sleep(60)
        assert await s.stored() == {"updated", "deleted", "created"}
        assert (await s.mark()).revision > before.revision


async def test_node_that_stood_still_is_not_fresh_before_it_knows_what_is_left():
    async with stand() as s:
        await changed_behind_the_back_of(s, 0)
        await s.store.wipe()
        s.resume(0)
        node = s.nodes[0].node
        await node.pulse._confirm()
        assert PredictorName("deleted") not in node.view.predictors
        assert PredictorName("created") in node.view.predictors


async def test_store_lost_again_while_it_is_filled_is_filled_all_the_same():
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, 0)
        await s.store.wipe()
        await asyncio.sleep(0.5)
        s.resume(0)
        await s.store.wipe()
        await s.settle(expected)


async def test_node_that_starts_waits_for_those_who_are_about_to_fill_the_store():
    async with stand() as s:
        await changed_behind_the_back_of(s, 0)
        await s.store.wipe()
        new = engine(registry=s.store, network=s.network, node_id="new")
        async with new as started:
            began_s = loop_time_s()
            await until_seeded(started.node.view, started.node.follower, s.store)
            assert loop_time_s() - began_s > 2  # longer than it takes for a mesh that is new
            assert PredictorName("created") in started.node.view.predictors


@pytest.mark.parametrize("value", [b"1", b"", b" 5", b"store", b"store x", b"\xff"])
def test_mark_that_says_nothing_of_a_store_is_none(value: bytes):
    assert decode(value) is None


def test_past_is_read_as_it_was_written():
    past = Past("a store", Revision(7))
    assert decode(encode(past)) == past
