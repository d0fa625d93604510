"""Runtimes that have no node: models wait for them, and it is known that they are wanted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mesh.core.errors import NoSupportingRuntime, Unavailable
from mesh.core.ids import NodeId, PredictorName, RuntimeName
from mesh.core.records import NodeState, RuntimeRecord, RuntimeState, RuntimeWish
from mesh.core.status import FailureInfo
from mesh.core.transition import Applied
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Delete, Put
from mesh.runtime.port import KeyChanged
from mesh.wire import records
from tests.support.builders import RUNTIME, model_of, spec
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import CLOCK, loop_time_s

UNHEALTHY = "Waiting for supporting runtime Pod to become available"


class GoneStore(MemoryRegistry):
    """A store of which writing can be cut off; `commits` of wishes are counted."""

    is_cut = False
    wishes = 0

    async def commit(self, ops, checks=()):
        is_wish = any(op.key.startswith(records.WANTED) for op in ops)
        self.wishes += is_wish
        if self.is_cut and is_wish:
            raise Unavailable("the store is away")
        return await super().commit(ops, checks)


@dataclass
class Zero:
    """A node that only routes, and a store in which somebody says which runtimes there are."""

    router: Engine
    registry: GoneStore
    network: Network = field(default_factory=Network)

    async def set(self, state: RuntimeState, since_s: float | None = None) -> None:
        since_s = CLOCK.wall_s() if since_s is None else since_s
        record = RuntimeRecord(RUNTIME.name, state, since_s, RUNTIME.model_types)
        await self._seen([Put(records.runtime_key(RUNTIME.name), records.encode(record))])

    async def forget(self) -> None:
        await self._seen([Delete(records.runtime_key(RUNTIME.name))])

    @asynccontextmanager
    async def node(self, runtime: FakeRuntime | None = None) -> AsyncIterator[Engine]:
        async with engine(
            runtime, registry=self.registry, node_id="n1", network=self.network
        ) as node:
            await until(lambda: NodeId("n1") in self.router.node.view.nodes)
            yield node
            await node.node.withdraw()
        self.network.change(lambda: self.network.nodes.pop("n1:8034"))

    async def wanted_s(self) -> float:
        found = await self.router.stored(records.WANTED)
        assert len(found) <= 1
        wishes = [wish for wish in found if isinstance(wish, RuntimeWish)]
        return wishes[0].wanted_s if wishes else 0.0

    async def _seen(self, ops) -> None:
        await self.router.node.follower.caught_up(await self.registry.commit(ops))


@asynccontextmanager
async def zero(state: RuntimeState | None = RuntimeState.ZERO) -> AsyncIterator[Zero]:
    registry, network = GoneStore(clock=loop_time_s), Network()
    async with engine(
        FakeRuntime(), registry=registry, node_id="r1", network=network, offers=None
    ) as router:
        there = Zero(router, registry, network)
        if state is not None:
            await there.set(state)
        yield there


async def test_new_predictor_waits_for_its_runtime_and_is_loaded_with_the_first_node():
    async with zero() as z:
        model = await z.router.apply("p")
        assert z.router.row("p") == "Pending - UpToDate"
        assert z.router.status("p").is_available
        await asyncio.sleep(30.0)
        assert z.router.row("p") == "Pending - UpToDate"
        gate = asyncio.Event()
        async with z.node(FakeRuntime(gates={"a": gate})) as node:
            await z.router.reaches("p", "Loading - UpToDate")
            gate.set()
            await z.router.reaches("p", "Loaded - UpToDate")
            assert node.runtime.loads == [model]


async def test_node_whose_runtime_is_coming_up_is_waited_for_too():
    async with zero(RuntimeState.STARTING) as z:
        await z.router.apply("p")
        runtime = FakeRuntime(is_up=False)
        async with z.node(runtime):
            await z.router.settle()
            assert z.router.row("p") == "Pending - UpToDate"
            runtime.is_up = True
            await z.router.reaches("p", "Loaded - UpToDate")


async def test_many_new_predictors_are_all_loaded_with_the_first_node():
    async with zero() as z:
        for number in range(9):
            await z.router.apply(f"p{number}")
        await z.router.settle()
        async with z.node():
            for number in range(9):
                await z.router.reaches(f"p{number}", "Loaded - UpToDate")


async def test_of_more_new_predictors_than_fit_those_that_do_are_loaded_and_nothing_is_evicted():
    async with zero() as z:
        names = [f"p{number}" for number in range(40)]
        for name in names:
            await z.router.apply(name)
        await z.router.settle()
        async with z.node(FakeRuntime(capacity_bytes=10 * MB)) as node:
            await asyncio.sleep(20.0)
            rows = [z.router.row(name) for name in names]
            assert rows.count("Loaded - UpToDate") == 10
            assert rows.count("Standby - UpToDate") == 30
            assert (len(node.runtime.loads), node.runtime.unloads) == (10, [])
            wishes = z.registry.wishes
            await asyncio.sleep(60.0)
            assert z.registry.wishes == wishes


async def test_request_waits_and_is_answered_once_a_node_comes():
    async with zero() as z:
        model = await z.router.apply("p")
        asked = [z.router.begin("p") for _ in range(5)]
        await asyncio.sleep(60.0)
        assert not any(request.done() for request in asked)
        async with z.node() as node:
            async with asyncio.timeout(10.0):
                copies = [await request for request in asked]
            assert {copy.id for copy in copies} == {model}
            assert node.runtime.loads == [model]


async def test_target_waits_for_a_runtime_that_went_away_and_switches_once_it_is_back():
    async with zero() as z:
        first = await z.router.apply("p", "a")
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")
            await until(lambda: z.router.predictor("p").served)
        await z.router.reaches("p", "Pending - UpToDate")
        second = await z.router.apply("p", "b")
        assert first != second
        await z.router.reaches("p", "Pending Pending InProgress")
        for _ in range(3):
            await asyncio.sleep(20.0)
            assert CLOCK.wall_s() - await z.wanted_s() < 7.0
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")
            assert z.router.predictor("p").active == second


async def test_runtime_that_takes_over_ten_seconds_is_a_failure_until_it_is_there():
    async with zero() as z:
        model = await z.router.apply("p")
        await asyncio.sleep(20.0)  # at zero nothing is amiss
        assert z.router.status("p").failure is None
        since_s = CLOCK.wall_s()
        await z.set(RuntimeState.STARTING, since_s)
        told: list[PredictorName] = []
        z.router.node.listeners.add(told.extend)
        await asyncio.sleep(9.5)
        assert z.router.status("p").is_available
        assert z.router.status("p").failure is None
        told.clear()
        await asyncio.sleep(2.0)
        assert told == ["p"]
        status = z.router.status("p")
        assert not status.is_available
        assert status.failure == FailureInfo("RuntimeUnhealthy", UNHEALTHY, model, time_s=since_s)
        assert z.router.row("p") == "Pending - UpToDate"
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")
            assert z.router.status("p").is_available
            assert z.router.status("p").failure is None


async def test_request_for_a_runtime_that_is_gone_fails_and_so_do_those_that_wait():
    async with zero() as z:
        await z.router.apply("p")
        waiting = z.router.begin("p")
        await z.router.settle()
        assert not waiting.done()
        await z.forget()
        with pytest.raises(NoSupportingRuntime):
            await waiting
        with pytest.raises(NoSupportingRuntime):
            await z.router.ask("p")
        status = z.router.status("p")
        assert not status.is_available
        assert status.failure is not None
        assert status.failure.reason == "NoSupportingRuntime"
        await z.set(RuntimeState.ZERO)
        await z.router.reaches("p", "Pending - UpToDate")


async def test_predictor_that_is_there_before_its_runtime_is_loaded_when_that_comes():
    async with zero(None) as z:
        model = await z.router.apply("p")
        await z.router.reaches("p", "Failed - UpToDate")
        await asyncio.sleep(20.0)
        await z.set(RuntimeState.ZERO)
        await z.router.reaches("p", "Pending - UpToDate")
        await asyncio.sleep(2.0)
        assert CLOCK.wall_s() - await z.wanted_s() < 7.0
        async with z.node() as node:
            await z.router.reaches("p", "Loaded - UpToDate")
            assert node.runtime.loads == [model]


async def test_predictor_that_is_there_before_any_node_that_fits_is_loaded_when_one_comes():
    async with zero(None) as z:
        await z.router.apply("p")
        await z.router.reaches("p", "Failed - UpToDate")
        await asyncio.sleep(20.0)
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")


@pytest.mark.parametrize("state", [None, RuntimeState.RUNNING])
async def test_what_failed_by_its_storage_key_is_loaded_once_that_changes(state):
    async with zero(state) as z:
        runtime = FakeRuntime(failures={"a": "no such credentials"})
        async with z.node(runtime):
            names = [f"p{number}" for number in range(6)]  # of some the router goes first
            for name in names:
                await z.router.apply(name)
            for name in names:
                await z.router.reaches(name, "Failed - UpToDate")
            await asyncio.sleep(5.0)
            del runtime.failures["a"]
            runtime.tell(KeyChanged(model_of("p0").source.storage_key))
            for name in names:
                await z.router.reaches(name, "Loaded - UpToDate")


async def test_new_predictor_is_loading_while_the_only_node_that_fits_begins():
    runtime = FakeRuntime(is_up=False)
    async with engine(runtime) as node:
        await node.apply("p")
        await asyncio.sleep(20.0)
        assert node.row("p") == "Loading - UpToDate"
        runtime.is_up = True
        await node.reaches("p", "Loaded - UpToDate")


async def test_what_waited_by_the_word_of_a_node_that_went_is_loaded_too():
    async with zero(None) as z:
        names = [f"p{number}" for number in range(6)]
        other = engine(
            FakeRuntime(), registry=z.registry, node_id="r2", network=z.network, offers=None
        )
        async with other as second:
            await until(lambda: NodeId("r2") in z.router.node.view.nodes)
            for name in names:
                await z.router.apply(name)
            await asyncio.sleep(5.0)
            await second.node.withdraw()
        z.network.change(lambda: z.network.nodes.pop("r2:8034"))
        await until(lambda: NodeId("r2") not in z.router.node.view.nodes)
        async with z.node():
            for name in names:
                await z.router.reaches(name, "Loaded - UpToDate")


async def test_predictor_that_begins_to_wait_hides_no_node_from_one_that_waits():
    async with zero(None) as z:
        names = [f"p{number}" for number in range(6)]  # each node has to offer some of them
        for name in names:
            await z.router.apply(name)
        await asyncio.sleep(20.3)
        async with z.node():
            await until(lambda: z.router.node.view.nodes[NodeId("n1")].state is NodeState.READY)
            for number in range(6):
                other = spec(f"q{number}", f"q{number}", "another")
                await z.router._step(PredictorName(other.name), Applied(other))
            for name in names:
                await z.router.reaches(name, "Loaded - UpToDate")
            assert z.router.row("q0") == "Failed - UpToDate"


async def test_runtime_that_supports_another_type_is_not_waited_for():
    async with zero(None) as z:
        other = RuntimeRecord(RuntimeName("triton"), RuntimeState.ZERO)
        await z.registry.commit([Put(records.runtime_key(other.name), records.encode(other))])
        await z.router.apply("p")
        await z.router.reaches("p", "Failed - UpToDate")
        with pytest.raises(NoSupportingRuntime):
            await z.router.ask("p")
        assert await z.wanted_s() == 0.0


async def test_new_predictor_makes_its_runtime_wanted_for_as_long_as_it_waits():
    async with zero() as z:
        await z.router.apply("p")
        await z.router.settle()
        assert CLOCK.wall_s() - await z.wanted_s() < 1.5
        wishes = z.registry.wishes
        await asyncio.sleep(60.0)
        assert CLOCK.wall_s() - await z.wanted_s() < 7.0
        assert 10 <= z.registry.wishes - wishes <= 12
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")
            await z.router.settle()
            wishes = z.registry.wishes
            await asyncio.sleep(60.0)
            assert z.registry.wishes == wishes


async def test_model_that_was_loaded_before_wakes_its_runtime_only_when_it_is_used():
    async with zero() as z:
        await z.router.apply("p")
        async with z.node():
            await z.router.reaches("p", "Loaded - UpToDate")
            await until(lambda: z.router.predictor("p").served)
        await z.router.reaches("p", "Pending - UpToDate")
        await asyncio.sleep(30.0)
        wishes = z.registry.wishes
        await asyncio.sleep(60.0)
        assert z.registry.wishes == wishes
        request = z.router.begin("p")
        await z.router.settle()
        assert CLOCK.wall_s() - await z.wanted_s() < 1.5
        await asyncio.sleep(60.0)
        assert 11 <= z.registry.wishes - wishes <= 13
        request.cancel()
        await z.router.settle()
        wishes = z.registry.wishes
        await asyncio.sleep(60.0)
        assert z.registry.wishes == wishes


async def test_wish_of_another_node_is_not_said_again():
    async with zero() as z:
        await asyncio.sleep(0.3)  # not at the same moment
        async with engine(
            FakeRuntime(), registry=z.registry, node_id="r2", network=z.network, offers=None
        ) as other:
            await z.router.apply("p")
            await z.router.settle()
            wishes = z.registry.wishes
            requests = [node.begin("p") for node in (z.router, other) for _ in range(50)]
            await asyncio.sleep(60.0)
            assert 10 <= z.registry.wishes - wishes <= 16
            for request in requests:
                request.cancel()
            await z.router.settle()


async def test_store_that_is_away_holds_up_no_request():
    async with zero() as z:
        await z.router.apply("p")
        await asyncio.sleep(20.0)
        z.registry.is_cut = True
        request = z.router.begin("p")
        await asyncio.sleep(20.0)
        z.registry.is_cut = False
        await asyncio.sleep(2.0)
        assert CLOCK.wall_s() - await z.wanted_s() < 3.0
        async with z.node():
            async with asyncio.timeout(10.0):
                assert (await request).id


async def test_no_wish_is_left_for_a_runtime_that_is_gone():
    async with zero() as z:
        await z.forget()
        z.router.node.wish([RUNTIME.name])
        await z.router.settle()
        assert await z.wanted_s() == 0.0


async def test_node_says_when_one_of_its_copies_was_last_used():
    async with zero() as z, z.node() as node:
        for name in ("p", "q"):
            await z.router.apply(name)
            await z.router.reaches(name, "Loaded - UpToDate")
        await asyncio.sleep(100.0)  # the use of the other one stays the oldest
        copy = await node.node.resolve("p")
        copy.leave()
        used_s = CLOCK.wall_s()
        await z.router.settle()
        await z.router.settle()
        record = z.router.node.view.nodes[NodeId("n1")]
        assert record.newest_use_s == pytest.approx(used_s, abs=1.0)
        assert record.oldest_use_s < used_s - 90.0
