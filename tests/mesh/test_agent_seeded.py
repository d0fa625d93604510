"""A node that starts believes an empty store only where nobody remembers what was in it."""

import asyncio
from contextlib import AsyncExitStack

from mesh.agent.seeded import QUIET_S, until_seeded
from mesh.core.ids import PredictorName
from mesh.wire.records import SEEDED
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.fickle_registry import FickleRegistry
from tests.support.virtual_time import loop_time_s

P = PredictorName("p")


async def seeded(node: Engine) -> float:
    """How long it took, in seconds."""
    began_s = loop_time_s()
    await until_seeded(node.node.view, node.node.follower, node.registry)
    return loop_time_s() - began_s


async def started(stack: AsyncExitStack, store: FickleRegistry, network: Network, name: str):
    return await stack.enter_async_context(engine(registry=store, network=network, node_id=name))


async def test_new_mesh_is_marked_by_its_first_node_and_the_next_one_need_not_wait():
    store, network = FickleRegistry(), Network()
    async with AsyncExitStack() as stack:
        one = await started(stack, store, network, "n1")
        assert await seeded(one) >= QUIET_S
        assert await store.get(SEEDED) is not None
        two = await started(stack, store, network, "n2")
        assert await seeded(two) < 0.1


async def test_node_that_starts_into_a_wiped_store_waits_for_what_the_others_remember():
    store, network = FickleRegistry(), Network()
    async with AsyncExitStack() as stack:
        old = [await started(stack, store, network, f"n{number}") for number in (1, 2, 3)]
        await seeded(old[0])
        await old[0].apply("p", "a")
        await until(lambda: all(P in node.node.view.predictors for node in old))
        await store.wipe()
        new = await started(stack, store, network, "n4")
        assert P not in new.node.view.predictors
        await seeded(new)
        assert P in new.node.view.predictors


async def test_node_waits_as_long_as_predictors_come_in():
    store, network = FickleRegistry(), Network()
    async with AsyncExitStack() as stack:
        one = await started(stack, store, network, "n1")

        async def come_in() -> None:
            for number in range(5):
                await one.apply(f"p{number}", "a")
                await asyncio.sleep(QUIET_S * 0.9)

        async with asyncio.TaskGroup() as group:
            group.create_task(come_in())
            assert await seeded(one) > 4 * QUIET_S * 0.9


async def test_store_that_lost_nothing_of_ours_is_marked_again():
    store, network = FickleRegistry(), Network()
    async with AsyncExitStack() as stack:
        one = await started(stack, store, network, "n1")
        await seeded(one)
        await store.wipe()
        await asyncio.sleep(1.0)
        assert await store.get(SEEDED) is not None


async def test_frozen_node_is_not_fresh_before_it_has_seen_the_store_that_came_back_empty():
    store, network = FickleRegistry(), Network()
    async with AsyncExitStack() as stack:
        one = await started(stack, store, network, "n1")
        for number in range(20):  # so that the next store's revisions are lower
            await one.apply(f"p{number}", "a")
        pulse, follower = one.node.pulse, one.node.follower
        await store.wipe()
        before = follower.revision
        await pulse._confirm()
        assert follower.revision < before
