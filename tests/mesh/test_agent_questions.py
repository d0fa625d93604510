"""What a node knows when it asks placement: policy, sizes of before, failures of nodes gone."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from mesh.core.copies import Leave
from mesh.core.demand import Thresholds
from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.placement import Constraint
from mesh.core.policy import Policy
from mesh.core.records import CopyState
from mesh.registry.memory import MemoryRegistry
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s


class Place:
    """Nodes of one mesh that come and go."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.network = Network()
        self.registry = MemoryRegistry(clock=loop_time_s)
        self._stack = stack

    async def start(self, name: str, **fields) -> Engine:
        runtime = fields.pop("runtime", None) or FakeRuntime()
        node = engine(runtime, registry=self.registry, network=self.network, node_id=name, **fields)
        return await self._stack.enter_async_context(node)


async def test_type_goes_where_its_labels_are():
    policy = Policy({"sklearn": Constraint(frozenset({"fast"}))})
    async with AsyncExitStack() as stack:
        place = Place(stack)
        slow = await place.start("n1", policy=policy)
        fast = await place.start("n2", policy=policy, labels=frozenset({"fast"}))
        await until(lambda: len(slow.node.view.nodes) == 2 == len(fast.node.view.nodes))
        for number in range(4):
            await slow.apply(f"p{number}", f"path-{number}")
            await slow.ask(f"p{number}")
        assert not slow.runtime.loads
        assert len(fast.runtime.loads) == 4


async def test_type_without_a_node_that_has_its_labels_is_refused():
    policy = Policy({"_default": Constraint(frozenset({"gpu"}))})
    async with AsyncExitStack() as stack:
        one = await Place(stack).start("n1", policy=policy)
        await one.apply("p", "a")
        with pytest.raises(Unavailable, match="gpu"):
            await one.node.resolve("p")


async def test_copies_are_spread_over_the_zones_that_nodes_announce():
    """One node has a zone of its own, and three share one: by chance both copies were there."""
    zones = {"n1": "a", "n2": "a", "n3": "a", "n4": "b"}
    async with AsyncExitStack() as stack:
        place = Place(stack)
        nodes = [await place.start(name, zone=zone) for name, zone in zones.items()]
        await until(lambda: all(len(node.node.view.nodes) == len(nodes) for node in nodes))
        for node in nodes:
            assert {it.id: it.zone for it in node.node.view.nodes.values()} == zones
        models = [await nodes[0].apply(f"p{at}", f"path-{at}", min_copies=2) for at in range(6)]
        for model in models:
            await until(lambda model=model: len(holders(nodes, model)) == 2)
            assert sorted(zones[name] for name in holders(nodes, model)) == ["a", "b"]


def holders(nodes: list[Engine], model: ModelId) -> list[str]:
    return [node.node.identity.id for node in nodes if model in node.runtime.loaded]


async def test_thresholds_are_the_policys():
    policy = Policy(thresholds=Thresholds(rps=0.5, look_s=1.0))
    async with AsyncExitStack() as stack:
        place = Place(stack)
        nodes = [await place.start(f"n{number}", policy=policy) for number in (1, 2)]
        await until(lambda: all(len(node.node.view.nodes) == 2 for node in nodes))
        await nodes[0].apply("p", "a")
        for _ in range(60):
            await nodes[0].ask("p")
            await asyncio.sleep(0.25)
        assert sum(len(node.runtime.loads) for node in nodes) == 2


async def test_size_of_before_is_remembered_once_no_copy_is_left():
    async with AsyncExitStack() as stack:
        one = await Place(stack).start("n1", runtime=FakeRuntime(sizes={"a": 7 * MB}))
        model = await one.apply("p", "a")
        await one.ask("p")
        one.node.holdings.send(model, Leave())
        await until(lambda: one.node.holdings.get(model) is None)
        question = one.node.question(model)
        assert (question.size_bytes, dict(question.copies)) == (7 * MB, {})


async def test_model_too_large_for_a_node_says_what_it_takes():
    async with AsyncExitStack() as stack:
        runtime = FakeRuntime(sizes={"a": 7 * MB}, capacity_bytes=5 * MB)
        one = await Place(stack).start("n1", runtime=runtime)
        model = await one.apply("p", "a")
        with pytest.raises(ModelLoadFailed):
            await one.ask("p")
        (copy,) = one.node.view.copies(model).values()
        assert (copy.state, copy.size_bytes) == (CopyState.FAILED, 7 * MB)


async def test_node_that_restarts_does_not_win_a_failed_model_another_try():
    async with AsyncExitStack() as stack:
        place = Place(stack)
        asking = await place.start("router", offers=None)
        broken = {"failures": {"a": "no such file"}}
        async with AsyncExitStack() as lives:
            first = Place(lives)
            first.network, first.registry = place.network, place.registry
            one = await first.start("n1", runtime=FakeRuntime(**broken))
            await asking.apply("p", "a")
            with pytest.raises(ModelLoadFailed):
                await asking.ask("p")
            address = one.node.identity.address
            place.network.change(lambda: place.network.nodes.pop(address))
        await until(lambda: NodeId("n1") not in asking.node.view.nodes, 60)
        model = asking.node.view.predictors[PredictorName("p")].active
        assert asking.node.has_failed_before(model)
        assert set(asking.node.question(model).lost_failures) == {address}
        asking.node.forgive(model)
        assert not asking.node.has_failed_before(model)
