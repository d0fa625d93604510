"""Several nodes over one memory store, in virtual time: one decision, routes to others' copies."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from mesh.agent.copy import Purpose
from mesh.core.errors import ModelLoadFailed
from mesh.core.ids import ModelId, NodeId, PredictorName, Revision
from mesh.core.records import CopyState, NodeState
from mesh.core.transition import Applied
from mesh.peers.port import Ask, LoadedThere, NotThere
from mesh.registry.memory import MemoryRegistry
from mesh.runtime.port import KeyChanged
from tests.support.builders import model_of, spec
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s
from tests.support.world import begin


@dataclass
class Mesh:
    """Nodes n1, n2, … of one store; each knows the others."""

    nodes: list[Engine]
    network: Network
    registry: MemoryRegistry

    def __getitem__(self, number: int) -> Engine:
        return self.nodes[number]

    def loads(self) -> int:
        return sum(len(node.runtime.loads) for node in self.nodes)

    def holders(self, model: str) -> list[str]:
        return [node.node.identity.id for node in self.nodes if model in node.runtime.loaded]

    async def lose_leases(self) -> None:
        """As after an outage of the store: nobody died, and the store knows nobody."""
        for node in self.nodes:
            await self.registry.revoke(node.node._announcer._lease)

    async def synced(self) -> None:
        """Each node sees each other's record as it is."""

        def agree() -> bool:
            return all(
                one.node.view.nodes.get(other.node.identity.id) == other.node.standing.record
                for one in self.nodes
                for other in self.nodes
            )

        await until(agree)


@asynccontextmanager
async def mesh(count: int = 3, **options) -> AsyncIterator[Mesh]:
    registry = MemoryRegistry(clock=loop_time_s)
    network = Network()
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                engine(
                    FakeRuntime(**options),
                    registry=registry,
                    node_id=f"n{number + 1}",
                    network=network,
                )
            )
            for number in range(count)
        ]
        there = Mesh(nodes, network, registry)
        await there.synced()
        yield there


async def test_many_requests_on_a_cold_model_through_all_nodes_load_it_once():
    async with mesh() as m:
        m[0].runtime.capacity_bytes = 0
        for node in m.nodes:
            node.runtime.gates["a"] = asyncio.Event()
        model = await m[0].apply("p", "a")
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(node.node.resolve("p")) for node in m.nodes * 100]
            await until(m.loads)
            for node in m.nodes:
                node.runtime.gates["a"].set()
        assert m.loads() == 1
        assert {task.result().id for task in asked} == {model}


async def test_a_model_of_another_node_is_routed_to_and_not_loaded_again():
    async with mesh() as m:
        model = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        assert m.loads() == 1
        (holder,) = m.holders(model)
        for node in m.nodes:
            (upstream,) = node.node.routes["p"]
            assert bool(upstream.hop) == (node.node.identity.id != holder)


async def test_creations_are_spread_over_the_free_room_of_all_nodes():
    async with mesh(capacity_bytes=4 * MB) as m:
        for number in range(12):
            await m[0].apply(f"p{number}", f"path-{number}")
        await until(lambda: m.loads() == 12, 30)
        assert [len(node.runtime.loaded) for node in m.nodes] == [4, 4, 4]


async def test_a_full_mesh_loads_on_use_and_evicts_what_was_used_longest_ago():
    async with mesh(2, capacity_bytes=2 * MB) as m:
        for number in range(6):
            await m[0].apply(f"p{number}", f"path-{number}")
        for number in range(6):
            copy = await m[number % 2].node.resolve(f"p{number}")
            await asyncio.sleep(1.5)
            copy.leave()
        assert sum(len(node.runtime.loaded) for node in m.nodes) == 4
        for node in m.nodes:
            assert node.runtime.peak_bytes <= 2 * MB


async def test_a_load_that_fails_on_one_node_is_tried_on_the_next():
    async with mesh() as m:
        for node in m.nodes:
            node.runtime.gates["a"] = asyncio.Event()
        model = await m[0].apply("p", "a")
        await until(m.loads)
        first = next(node for node in m.nodes if node.runtime.loads)
        first.runtime.failures["a"] = "it is broken here"
        asked = begin(m[0].node.resolve("p"))
        for node in m.nodes:
            node.runtime.gates["a"].set()
        copy = await asked
        copy.leave()
        assert m.holders(model) != [first.node.identity.id]


async def test_a_model_that_fails_everywhere_is_refused_with_its_reason():
    async with mesh() as m:
        for node in m.nodes:
            node.runtime.failures["a"] = "it is broken"
        await m[0].apply("p", "a")
        with pytest.raises(ModelLoadFailed, match="it is broken"):
            await m[1].node.resolve("p")
        assert m.loads() == 3


async def test_an_update_switches_on_all_nodes_and_the_old_model_goes():
    async with mesh() as m:
        old = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        new = await m[1].apply("p", "b")
        await until(lambda: all(node.node.routes["p"][0].id == new for node in m.nodes))
        await until(lambda: not m.holders(old))
        assert len(m.holders(new)) == 1


async def test_what_had_several_copies_has_as_many_of_its_new_model_at_once():
    async with mesh() as m:
        await m[0]._step(PredictorName("p"), Applied(replace(spec("p", "a"), min_copies=3)))
        old = model_of("p", "a").id
        await until(lambda: len(m.holders(old)) == 3, 30)
        new = await m[0].apply("p", "b")
        await until(lambda: m[0].node.view.predictors["p"].active == new)
        await until(lambda: len(m.holders(new)) == 3, 3)
        await until(lambda: not m.holders(old))


async def test_what_failed_everywhere_is_loaded_on_one_once_the_storage_key_changes():
    async with mesh() as m:
        for node in m.nodes:
            node.runtime.failures["a"] = "no such credentials"
        model = await m[0].apply("p", "a")
        with pytest.raises(ModelLoadFailed):
            await m[0].node.resolve("p")
        view = m[0].node.view
        await until(lambda: len(view.copies(model)) == 3)
        await until(lambda: all(it.state is CopyState.FAILED for it in view.copies(model).values()))
        for node in m.nodes:
            del node.runtime.failures["a"]
            node.runtime.tell(KeyChanged(model_of("p", "a").source.storage_key))
        await until(lambda: len(m.holders(model)) == 1, 10)


async def test_what_takes_over_has_no_more_copies_than_its_predictor_allows():
    async with mesh() as m:
        await m[0]._step(PredictorName("p"), Applied(replace(spec("p", "a"), min_copies=3)))
        old, new = model_of("p", "a").id, model_of("p", "b").id
        await until(lambda: len(m.holders(old)) == 3, 30)
        await m[0]._step(PredictorName("p"), Applied(replace(spec("p", "b"), max_copies=2)))
        await until(lambda: len(m.holders(new)) == 2, 3)
        await asyncio.sleep(3)
        assert len(m.holders(new)) == 2


async def test_a_node_that_dies_is_taken_out_and_its_models_come_back_elsewhere():
    async with mesh() as m:
        model = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        (holder,) = m.holders(model)
        other = next(node for node in m.nodes if node.node.identity.id != holder)
        m.network.change(lambda: m.network.nodes.pop(f"{holder}:8034"))
        other.node.unreachable(other.node.routes["p"][0])
        assert "p" not in other.node.routes
        copy = await other.node.resolve("p")
        assert copy.node != holder if copy.hop else copy.is_loaded


async def test_leases_that_ran_out_change_nothing_while_the_nodes_answer():
    async with mesh() as m:
        model = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        before = [node.node.routes["p"] for node in m.nodes]
        await m.lose_leases()
        await asyncio.sleep(0.05)
        assert [node.node.routes["p"] for node in m.nodes] == before
        await asyncio.sleep(15)
        assert [node.node.routes["p"] for node in m.nodes] == before
        assert m.loads() == 1
        assert set(m[0].node.view.copies(model)) == {NodeId(m.holders(model)[0])}


async def test_a_node_that_leaves_hands_its_used_models_over_first():
    async with mesh(2) as m:
        model = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        (copy,) = m[0].node.routes["p"]
        copy.enter(loop_time_s())
        copy.leave()
        used_s = loop_time_s()
        await asyncio.sleep(100)
        holder = one_with(m, model)
        (other,) = [node for node in m.nodes if node is not holder]
        await holder.node.leave(10)
        assert holder.node.standing.state is NodeState.DRAINING
        assert model in other.runtime.loaded
        handed = other.node.holdings.get(model)
        assert abs(handed.entry.used_s - used_s) < 5  # not used by being handed over
        await until(lambda: holder.node.routes["p"][0].hop)


async def test_what_is_handed_over_waits_for_the_room_of_a_node_that_comes_just_now():
    async with mesh(2, capacity_bytes=2 * MB) as m:
        for name in ("a", "b", "c"):
            await use(m, name)
        leaving, full = sorted(m.nodes, key=lambda node: len(node.runtime.loaded))
        (model,) = leaving.runtime.loaded
        async with asyncio.TaskGroup() as group:
            group.create_task(leaving.node.leave(60))
            await asyncio.sleep(1)
            fake = FakeRuntime(capacity_bytes=2 * MB)
            newcomer = engine(fake, registry=m.registry, node_id="n3", network=m.network)
            await group.create_task(in_time(newcomer, lambda: model in fake.loaded))
        assert len(full.runtime.loaded) == 2
        assert len(full.runtime.loads) == 2


async def test_what_is_handed_over_evicts_only_what_was_used_long_before():
    async with mesh(2, capacity_bytes=MB) as m:
        older = await use(m, "older")
        await asyncio.sleep(100)
        newer = await use(m, "newer")
        leaving = one_with(m, older)
        staying = one_with(m, newer)
        await leaving.node.leave(60)
        assert staying.runtime.loaded.keys() == {newer}
    async with mesh(2, capacity_bytes=MB) as m:
        older = await use(m, "older")
        await asyncio.sleep(100)
        newer = await use(m, "newer")
        leaving = one_with(m, newer)
        staying = one_with(m, older)
        await leaving.node.leave(60)
        assert staying.runtime.loaded.keys() == {newer}


async def test_node_that_has_left_says_of_no_model_that_it_is_there():
    async with mesh(2) as m:
        model = await use(m, "a")
        holder = one_with(m, model)
        ask = Ask(ModelId(model), Purpose.USE, Revision(0))
        assert isinstance(await holder.node.ensure_loaded(ask), LoadedThere)
        await holder.node.withdraw()
        assert isinstance(await holder.node.ensure_loaded(ask), NotThere)
        assert model in holder.runtime.loaded  # what is in flight goes on


async def test_peers_send_nothing_more_to_a_node_that_says_farewell_though_its_record_stays():
    async with mesh(2) as m:
        model = await use(m, "a")
        leaving, asked = one_with(m, model), one_without(m, model)
        (copy,) = asked.node.routes["a"]
        assert copy.node == leaving.node.identity.id
        leaving.node.has_left = True  # as after withdraw, where the store has not said it yet
        assert await leaving.node.bid_farewell(10)
        assert leaving.node.identity.id in asked.node.view.nodes
        assert "a" not in asked.node.routes
        await asyncio.sleep(10)
        assert "a" not in asked.node.routes


@pytest.mark.parametrize("is_told", [True, False], ids=["told by the store too", "not told"])
async def test_farewell_lasts_until_what_peers_had_sent_is_answered(*, is_told: bool):
    async with mesh(3) as m:
        model = await use(m, "a")
        leaving, asked = one_with(m, model), one_without(m, model)
        sent = [await asked.node.resolve("a") for _ in range(2)]
        if is_told:
            await leaving.node.withdraw()
            await until(lambda: leaving.node.identity.id not in asked.node.view.nodes)
        async with asyncio.TaskGroup() as group:
            farewell = group.create_task(leaving.node.bid_farewell(10))
            for copy in sent:
                await asyncio.sleep(1)
                assert not farewell.done()
                copy.leave()
            await asyncio.sleep(0.1)
            assert farewell.done()
        assert farewell.result()


async def test_copies_elsewhere_are_remembered_for_as_long_as_they_are_routed_to_or_used():
    async with mesh(2) as m:
        model = await use(m, "a")
        holder, asked = one_with(m, model), one_without(m, model)
        remembered = asked.node._routes._remote
        used = await asked.node.resolve("a")
        assert set(remembered.values()) == {used}
        await holder.delete("a")
        await until(lambda: "a" not in asked.node.routes)
        assert asked.node._routes.open_to(holder.node.identity.id) == (used,)
        used.leave()
        del used
        assert not remembered


async def test_farewell_says_whether_a_peer_could_not_be_told_or_took_too_long():
    async with mesh(3) as m:
        model = await use(m, "a")
        leaving, asked = one_with(m, model), one_without(m, model)
        addresses = [node.node.identity.address for node in (leaving, asked)]
        m.network.change(lambda: m.network.cut.add(tuple(addresses)))
        assert not await leaving.node.bid_farewell(10)
        m.network.change(m.network.cut.clear)
        await until(lambda: "a" in asked.node.routes)
        used = await asked.node.resolve("a")
        began_s = loop_time_s()
        assert not await leaving.node.bid_farewell(10)
        assert used.in_flight == 1
        assert loop_time_s() - began_s == pytest.approx(10, abs=0.1)


async def test_model_that_is_loaded_while_its_node_leaves_is_handed_over_too():
    async with mesh(1) as m:
        (leaving,) = m.nodes
        await use(m, "a")
        leaving.runtime.gates["late"] = asyncio.Event()
        late = await leaving.apply("late", "late")
        request = leaving.begin("late")
        fake = FakeRuntime(gates={"a": asyncio.Event()})
        async with (
            engine(fake, registry=m.registry, node_id="n2", network=m.network),
            asyncio.TaskGroup() as group,
        ):
            await until(lambda: NodeId("n2") in leaving.node.view.nodes)
            group.create_task(leaving.node.leave(60))
            await until(lambda: fake.loads)
            leaving.runtime.gates["late"].set()
            (await request).leave()
            fake.gates["a"].set()
            await until(lambda: late in fake.loaded)


async def test_a_frozen_node_answers_nothing_until_it_has_caught_up():
    async with mesh(2) as m:
        await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        node = m[0].node
        assert node.pulse.is_fresh(loop_time_s())
        assert not node.pulse.is_fresh(loop_time_s() + 30)


async def test_a_surplus_copy_is_trimmed():
    async with mesh(2) as m:
        model = await m[0].apply("p", "a")
        await until(lambda: all("p" in node.node.routes for node in m.nodes))
        for node in m.nodes:
            if model not in node.runtime.loaded:
                node.node.holdings.start(model, Purpose.EXTRA, frozenset())
        await until(lambda: len(m.holders(model)) == 2)
        await until(lambda: len(m.holders(model)) == 1, 60)
        (copy,) = m[0].node.view.copies(model).values()
        assert copy.state is CopyState.LOADED


async def test_min_copies_are_loaded_and_not_evicted():
    async with mesh(3, capacity_bytes=2 * MB) as m:
        wanted = replace(spec("kept", "kept"), min_copies=2)
        await m[0]._step(PredictorName("kept"), Applied(wanted))
        await until(lambda: sum("kept" in name for name in held(m)) == 2, 60)
        for number in range(8):
            await m[0].apply(f"p{number}", f"path-{number}")
            copy = await m[number % 3].node.resolve(f"p{number}")
            copy.leave()
            await asyncio.sleep(1.1)
        assert sum("kept" in name for name in held(m)) == 2


async def use(m: Mesh, name: str) -> ModelId:
    """A model, whose path is its name, that is Loaded on a node and was used just now."""
    model = await m[0].apply(name, name)
    await until(lambda: all(name in node.node.routes for node in m.nodes))
    holder = one_with(m, model)
    await holder.ask(name)
    return model


def one_with(m: Mesh, model: ModelId) -> Engine:
    (found,) = [node for node in m.nodes if model in node.runtime.loaded]
    return found


def one_without(m: Mesh, model: ModelId) -> Engine:
    return next(node for node in m.nodes if model not in node.runtime.loaded)


async def in_time(
    newcomer: AbstractAsyncContextManager[Engine], condition: Callable[[], bool]
) -> None:
    async with newcomer:
        await until(condition)


def held(m: Mesh) -> list[str]:
    return [str(model) for node in m.nodes for model in node.runtime.loaded]
