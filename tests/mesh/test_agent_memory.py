"""A node that was frozen and wakes up once the store is away: the others tell what it missed."""

import asyncio

from mesh.core.ids import PredictorName, Revision
from mesh.registry.port import Change
from tests.support.engine import engine, until
from tests.support.fickle_mesh import NODES, Stand, changed_behind_the_back_of, stand
from tests.support.virtual_time import loop_time_s

UPDATED = PredictorName("updated")


async def woken(s: Stand) -> None:
    """The store is away, and node 0 knows that it stood still."""
    s.store.go_away()
    s.resume(0)
    await s.nodes[0].node.pulse._confirm()


async def test_what_changed_during_the_freeze_is_known_before_the_store_is_back():
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, 0)
        await s.nodes[1].ask("created")
        await asyncio.sleep(5)  # all is told
        await woken(s)
        assert s.views()[0] == expected
        assert "created" in s.nodes[0].node.routes
        copy = await s.nodes[0].node.resolve("created")
        assert copy.id == expected["created"]
        copy.leave()
        loads = sum(node.runtime.loads.count(expected["created"]) for node in s.nodes)
        assert loads == 1
        s.store.come_back()
        await s.settle(expected)


async def test_the_view_never_goes_back_while_the_store_tells_it_all_again():
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, 0)
        expected["updated"] = await s.nodes[1].apply("updated", "newest")
        await until(lambda: s.views()[2] == expected)
        await woken(s)
        view, seen = s.nodes[0].node.view, set()
        view.readers.add(lambda *_: seen.add(str(view.predictors[UPDATED].target)))
        s.store.come_back()
        await s.settle(expected)
        assert seen == {expected["updated"]}


async def test_store_that_comes_back_without_its_data_is_believed_all_the_same():
    async with stand() as s:
        expected = await changed_behind_the_back_of(s, 0)
        await woken(s)
        s.store.come_back()
        await s.store.wipe()
        await s.settle(expected)
        expected["updated"] = await s.nodes[1].apply("updated", "newest")
        await s.settle(expected)


async def test_one_that_was_told_tells_the_next_one():
    async with stand() as s:
        await s.nodes[2].apply("p", "old")
        await until(lambda: all("p" in node.node.view.predictors for node in s.nodes))
        s.freeze(0)
        s.freeze(1)
        for path in ("newer", "newest"):
            new = await s.nodes[2].apply("p", path)
        await woken(s)
        s.freeze(2)
        s.resume(1)
        await s.nodes[1].node.pulse._confirm()
        assert s.views()[1] == {"p": new}


async def test_what_was_told_already_is_not_taken_from_the_store_again():
    """Which tells it from where it was left off, if it is etcd."""
    async with stand() as s:
        await changed_behind_the_back_of(s, 0)
        await woken(s)
        memory, told = s.nodes[0].node.memory, s.nodes[1].node.follower.revision
        early, late, other = (
            Change("predictors/updated", None, told),
            Change("predictors/updated", None, Revision(told + 1)),
            Change("copies/updated-1/n1", None, told),
        )
        assert memory.sift((early, late, other)) == (late, other)
        s.store.come_back()
        await s.store.wipe()
        await until(lambda: s.nodes[0].node.follower.resets)
        assert memory.sift((early,)) == (early,)


async def test_where_nothing_changed_nothing_is_told_and_nobody_waits():
    async with stand() as s:
        await s.nodes[0].apply("p", "a")
        await until(lambda: all("p" in node.node.view.predictors for node in s.nodes))
        await asyncio.sleep(5)
        s.store.go_away()
        follower, memory = s.nodes[0].node.follower, s.nodes[1].node.memory
        assert memory.since(follower.store_id, follower.revision) is None
        assert memory.since("another store", follower.revision - 1) is None
        began_s = loop_time_s()
        await s.nodes[0].node.pulse._confirm()
        assert loop_time_s() - began_s < 1


async def test_others_that_do_not_answer_are_not_waited_for_long():
    async with stand() as s:
        await changed_behind_the_back_of(s, 0)
        for number in range(1, NODES):
            s.freeze(number)
        began_s = loop_time_s()
        await woken(s)
        assert loop_time_s() - began_s < 5


async def test_node_without_others_goes_on():
    async with engine() as w:
        await w.apply("p", "a")
        await w.node.memory.refresh()
        assert "p" in w.node.view.predictors
