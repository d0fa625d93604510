"""The engine: loads, failures, a runtime that comes and goes, an owner who changes his mind."""

import asyncio
from collections.abc import Sequence

import pytest

from mesh.agent.intake import Reading, take_in
from mesh.core.copies import Failed, Loaded
from mesh.core.errors import ModelLoadFailed, ModelNotFound, Unavailable
from mesh.core.ids import ModelId, NodeId, Revision, StorageKey
from mesh.core.placement import FAILURE_MEMORY_S
from mesh.core.records import CopyRecord, CopyState, NodeRecord, NodeState, Predictor
from mesh.core.status import TransitionStatus
from mesh.core.view import View
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Change, Check, Delete, Entry, Op, Put
from mesh.runtime.port import KeyChanged, Progress
from mesh.wire import records
from tests.support.builders import copy, model_of, node, predictor
from tests.support.engine import Engine, engine, until
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s


async def test_created_predictor_is_loaded_and_in_the_store():
    async with engine() as e:
        model = await e.apply("p")
        await e.reaches("p", "Loaded - UpToDate")
        assert (await e.ask("p")) == model
        await e.settle()
        (there,) = await e.stored(records.COPIES)
        assert isinstance(there, CopyRecord)
        assert (there.model, there.node, there.state) == (model, "n1", CopyState.LOADED)
        (stored,) = await e.stored(records.PREDICTORS)
        assert isinstance(stored, Predictor)
        assert stored.served


async def test_unknown_name_is_not_found():
    async with engine() as e:
        with pytest.raises(ModelNotFound):
            await e.ask("nobody")
        with pytest.raises(ModelNotFound):
            e.node.is_model_ready("nobody")


async def test_model_is_ready_while_it_is_loaded_or_loads_on_use():
    runtime = FakeRuntime(gates={"a": asyncio.Event()}, failures={"bad": "no such object"})
    async with engine(runtime) as e:
        await e.apply("p")
        assert not e.node.is_model_ready("p")
        runtime.gates["a"].set()
        await e.reaches("p", "Loaded - UpToDate")
        assert e.node.is_model_ready("p")
        await e.apply("q", "bad")
        await e.reaches("q", "Failed - UpToDate")
        assert not e.node.is_model_ready("q")


async def test_requests_that_wait_for_a_load_hold_their_copy_when_it_comes():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with engine(runtime) as e:
        await e.apply("p")
        waiting = [e.begin("p") for _ in range(3)]
        await e.settle()
        runtime.gates["a"].set()
        entered = {await task for task in waiting}
        (there,) = entered
        assert there.in_flight == 3
        assert there.pins == 0


async def test_node_is_known_by_its_runtime_and_its_capacity():
    async with engine() as e:
        await e.settle()
        (stored,) = await e.stored(records.NODES)
        assert isinstance(stored, NodeRecord)
        assert (stored.id, stored.state, stored.capacity_bytes) == (
            "n1",
            NodeState.READY,
            10 * MB,
        )


@pytest.mark.parametrize("node_id", ["a/b", "../n", "ö ü", "100%2F", "n\n\x00", "copies/"])
async def test_node_with_a_strange_name_knows_its_own_records(node_id):
    async with engine(node_id=node_id) as e:
        model = await e.apply("p")
        await e.reaches("p", "Loaded - UpToDate")
        await e.settle()
        (there,) = await e.stored(records.COPIES)
        assert isinstance(there, CopyRecord)
        assert (there.model, there.node) == (model, node_id)
        await e.delete("p")
        await e.settle()
        assert await e.stored(records.COPIES) == []
        assert e.node.view.copies(model) == {}
        assert set(e.node.view.nodes) == {node_id}


async def test_node_announces_again_after_it_lost_its_lease():
    registry = MemoryRegistry(clock=loop_time_s)
    async with engine(registry=registry) as e:
        await e.apply("p")
        await e.reaches("p", "Loaded - UpToDate")
        await e.settle()
        before = await e.stored("")
        ours = [key.key for key in (await registry.list("")).entries if "n1" in key.key]
        await registry.commit([Delete(key) for key in ours])  # as if a lease had ended
        assert e.row("p") == "Loaded - UpToDate"
        assert len(await e.stored("")) == len(before) - len(ours)


# Failures.


async def test_failed_load_is_remembered_and_then_tried_again():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with engine(runtime) as e:
        await e.apply("p", "bad")
        await e.reaches("p", "Failed - UpToDate")
        for _ in range(3):
            with pytest.raises(ModelLoadFailed, match="no such object"):
                await e.ask("p")
        await asyncio.sleep(FAILURE_MEMORY_S - 10)
        assert len(runtime.loads) == 1
        assert e.row("p") == "Failed - UpToDate"
        runtime.failures.clear()
        await e.reaches("p", "Loaded - UpToDate", within_s=20)
        assert len(runtime.loads) == 2


async def test_failed_load_that_fails_again_is_remembered_anew():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with engine(runtime) as e:
        await e.apply("p", "bad")
        await asyncio.sleep(3.5 * FAILURE_MEMORY_S)
        assert len(runtime.loads) == 4


async def test_changed_storage_key_makes_what_failed_load_again():
    runtime = FakeRuntime(failures={"bad": "no such key"})
    async with engine(runtime) as e:
        model = await e.apply("p", "bad")
        await e.reaches("p", "Failed - UpToDate")
        runtime.failures.clear()
        for event in (KeyChanged(StorageKey("other")), Progress(model, "pull", 1, 2)):
            runtime.tell(event)
        await e.settle()
        assert e.row("p") == "Failed - UpToDate"
        runtime.tell(KeyChanged(model_of("p").source.storage_key))
        await e.reaches("p", "Loaded - UpToDate")


async def test_changed_storage_key_ends_a_blocked_transition():
    runtime = FakeRuntime(failures={"b": "no such key"})
    async with engine(runtime) as e:
        await e.apply("p", "a")
        await e.ask("p")
        target = await e.apply("p", "b")
        await e.reaches("p", "Loaded Failed BlockedByFailedLoad")
        runtime.failures.clear()
        runtime.tell(KeyChanged(model_of("p").source.storage_key))
        await e.reaches("p", "Loaded - UpToDate")
        assert await e.ask("p") == target


async def test_failed_load_that_holds_memory_is_unloaded_before_it_is_failed():
    runtime = FakeRuntime(capacity_bytes=MB, unload_gate=asyncio.Event())
    async with engine(runtime) as e:
        runtime.default_size_bytes = 2 * MB  # larger than the node was told
        await e.apply("p")
        await until(lambda: runtime.loads)
        await e.settle()
        assert e.row("p") == "Loading - UpToDate"
        assert runtime.unload_gate is not None
        runtime.unload_gate.set()
        await e.reaches("p", "Failed - UpToDate")
        assert runtime.loaded == {}
        failure = e.status("p").failure
        assert failure is not None
        assert "more than the node has" in failure.message


async def test_unload_that_is_refused_is_tried_again():
    runtime = FakeRuntime(capacity_bytes=MB, bad_unloads=5)
    async with engine(runtime) as e:
        first = await e.apply("p")
        await e.ask("p")
        await e.apply("q", "b")
        waiting = e.begin("q")
        await asyncio.sleep(1.0)
        assert not waiting.done()
        assert e.row("p") == "Standby - UpToDate"
        await asyncio.sleep(10.0)
        assert waiting.done()
        assert runtime.unloads == [first]
        assert runtime.peak_bytes == MB


# The runtime comes and goes.


async def test_runtime_lost_in_a_load_is_waited_for_and_the_model_loads_again():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with engine(runtime) as e:
        model = await e.apply("p")
        waiting = e.begin("p")
        await until(lambda: runtime.loads)
        runtime.die()
        await e.settle()
        assert e.row("p") == "Loading - UpToDate"
        assert not e.node.is_ready
        runtime.gates["a"].set()
        runtime.come_back()
        assert (await waiting).id == model
        assert runtime.loads == [model, model]


async def test_load_that_a_dying_runtime_cut_off_is_no_failure():
    runtime = FakeRuntime(cut_off={"a"}, bad_unloads=1000)
    async with engine(runtime) as e:
        model = await e.apply("p")
        await until(lambda: runtime.loads)
        await asyncio.sleep(0.1)  # the load is known to be cut off, and not yet why
        runtime.die()
        await e.settle()
        assert e.row("p") == "Loading - UpToDate"
        runtime.cut_off.clear()
        runtime.bad_unloads = 0
        runtime.come_back()
        await e.reaches("p", "Loaded - UpToDate")
        assert runtime.loads == [model, model]


async def test_load_that_is_cut_off_by_a_runtime_that_lives_on_is_a_failure():
    runtime = FakeRuntime(cut_off={"a"})
    async with engine(runtime) as e:
        model = await e.apply("p")
        await e.reaches("p", "Failed - UpToDate")
        assert runtime.unloads == [model]
        failure = e.status("p").failure
        assert failure is not None
        assert failure.message == "connection reset"


@pytest.mark.parametrize("pause_s", [0.0, 0.1])
async def test_load_that_a_lost_adapter_cut_off_is_no_failure(pause_s):
    runtime = FakeRuntime()
    async with engine(runtime) as e:
        kept = await e.apply("kept")
        await e.ask("kept")
        runtime.cut_off.add("b")
        runtime.bad_unloads = 1000
        model = await e.apply("p", "b")
        await until(lambda: model in runtime.loads)
        await asyncio.sleep(pause_s)
        runtime.lose_adapter()
        await e.settle()
        assert e.row("p") == "Loading - UpToDate"
        assert await e.ask("kept") == kept
        runtime.cut_off.clear()
        runtime.bad_unloads = 0
        runtime.come_back()
        assert await e.ask("p") == model
        assert runtime.loads == [kept, model, model]


async def test_unload_goes_on_when_a_lost_adapter_is_back():
    runtime = FakeRuntime()
    async with engine(runtime) as e:
        model = await e.apply("p")
        await e.ask("p")
        runtime.bad_unloads = 5
        await e.delete("p")
        runtime.lose_adapter()
        await e.settle()
        runtime.come_back()
        await until(lambda: runtime.unloads == [model])
        assert e.node.copy(model) is None


async def test_runtime_lost_while_it_unloads_has_let_go():
    runtime = FakeRuntime(capacity_bytes=MB, unload_gate=asyncio.Event())
    async with engine(runtime) as e:
        await e.apply("p")
        await e.ask("p")
        await e.apply("q", "b")
        waiting = e.begin("q")
        await e.settle()
        runtime.die()
        await e.settle()
        runtime.come_back()
        assert (await waiting).id == model_of("q", "b").id
        assert runtime.unloads == []


async def test_models_of_a_lost_runtime_are_on_standby_and_load_on_use():
    runtime = FakeRuntime()
    async with engine(runtime) as e:
        model = await e.apply("p")
        held = await e.node.resolve("p")
        runtime.die()
        await e.reaches("p", "Standby - UpToDate")
        assert "p" not in e.node.routes
        held.leave()  # a request that was in flight ends late
        runtime.come_back()
        assert await e.ask("p") == model


async def test_copy_that_drains_when_its_runtime_is_lost_is_gone():
    async with engine() as e:
        model = await e.apply("p")
        held = await e.node.resolve("p")
        await e.delete("p")
        e.runtime.die()
        await e.settle()
        assert e.node.copy(model) is None
        held.leave()
        assert e.runtime.unloads == []


async def test_runtime_that_is_starting_is_asked_until_it_is_ready():
    class Starting(FakeRuntime):
        asked = 0

        async def status(self):
            self.asked += 1
            return None if self.asked < 5 else await super().status()

    async with engine(Starting()) as e:
        model = await e.apply("p")
        assert await e.ask("p") == model


async def test_request_while_the_runtime_stays_away_is_unavailable_after_a_while():
    async with engine(FakeRuntime(is_up=False), patience_s=5.0) as e:
        await e.apply("p")
        waiting = e.begin("p")
        await asyncio.sleep(4.0)
        assert not waiting.done()
        await asyncio.sleep(2.0)
        assert isinstance(waiting.exception(), Unavailable)
        with pytest.raises(Unavailable):
            await e.ask("p")
        e.runtime.come_back()
        await until(lambda: e.node.is_ready)
        await e.ask("p")


async def test_transition_goes_on_when_a_runtime_that_stayed_away_is_back():
    runtime = FakeRuntime()
    async with engine(runtime, patience_s=5.0) as e:
        await e.apply("p")
        await e.ask("p")
        runtime.gates["b"] = asyncio.Event()
        target = await e.apply("p", "b")
        await e.settle()
        runtime.die()
        await asyncio.sleep(60.0)
        runtime.gates["b"].set()
        runtime.come_back()
        await until(lambda: e.predictor("p").active == target)
        await e.reaches("p", "Loaded - UpToDate")


async def test_model_that_the_runtime_lost_is_loaded_again():
    async with engine() as e:
        model = await e.apply("p")
        await e.ask("p")
        assert not await e.node.recheck(model)
        e.runtime.loaded.clear()
        assert await e.node.recheck(model)
        assert "p" not in e.node.routes
        assert await e.node.recheck(model)  # somebody else has found out already
        assert await e.ask("p") == model
        assert e.runtime.loads == [model, model]


# The owner changes his mind.


async def test_update_there_and_back_and_there_again_ends_where_it_should():
    async with engine() as e:
        models = [await e.apply("p", "a")]
        await e.ask("p")
        for path in "baba":
            models.append(await e.apply("p", path))
            await until(lambda: e.predictor("p").active == models[-1])
            await e.reaches("p", "Loaded - UpToDate")
            assert await e.ask("p") == models[-1]
        await e.settle()
        assert list(e.runtime.loaded) == [models[-1]]
        assert [m.id for m in await e.stored(records.MODELS)] == [models[-1]]


@pytest.mark.parametrize("pause_s", [0.0, 0.05, 1.0])
async def test_update_there_and_back_before_it_is_loaded_ends_where_it_should(pause_s):
    runtime = FakeRuntime(gates={"b": asyncio.Event()})
    async with engine(runtime) as e:
        first = await e.apply("p", "a")
        await e.ask("p")
        for path in "babab":
            model = await e.apply("p", path)
            assert await e.ask("p") == first
            await asyncio.sleep(pause_s)
        runtime.gates["b"].set()
        await until(lambda: e.predictor("p").active == model)
        assert await e.ask("p") == model
        await e.settle()
        assert list(runtime.loaded) == [model]


async def test_update_back_while_the_old_target_unloads_slowly():
    runtime = FakeRuntime(gates={"b": asyncio.Event()}, unload_gate=asyncio.Event())
    async with engine(runtime) as e:
        await e.apply("p", "a")
        await e.ask("p")
        await e.apply("p", "b")
        await e.settle()
        await e.apply("p", "a")
        target = await e.apply("p", "b")
        await e.settle()
        runtime.gates["b"].set()
        assert e.status("p").transition is TransitionStatus.IN_PROGRESS
        assert runtime.unload_gate is not None
        runtime.unload_gate.set()
        await until(lambda: e.predictor("p").active == target)


async def test_update_keeps_what_is_in_flight_on_the_old_model():
    runtime = FakeRuntime()
    async with engine(runtime, drain_limit_s=60.0) as e:
        old = await e.apply("p", "a")
        held = await e.node.resolve("p")
        new = await e.apply("p", "b")
        await until(lambda: e.predictor("p").active == new)
        assert await e.ask("p") == new
        await e.settle()
        assert old in runtime.loaded
        held.leave()
        await until(lambda: old not in runtime.loaded)


async def test_request_in_flight_holds_up_an_unload_for_so_long_and_no_longer():
    async with engine(drain_limit_s=5.0) as e:
        model = await e.apply("p", "a")
        held = await e.node.resolve("p")
        await e.delete("p")
        await asyncio.sleep(4.0)
        assert model in e.runtime.loaded
        await asyncio.sleep(2.0)
        assert model not in e.runtime.loaded
        held.leave()


async def test_deletion_while_it_loads_stops_the_load_and_tells_who_waits():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with engine(runtime) as e:
        model = await e.apply("p")
        waiting = e.begin("p")
        await until(lambda: runtime.loads)
        await e.delete("p")
        await e.settle()
        assert isinstance(waiting.exception(), ModelNotFound)
        assert runtime.unloads == [model]
        assert e.node.copy(model) is None
        assert await e.stored(records.COPIES) == []


async def test_deletion_while_it_waits_for_room_leaves_nothing():
    runtime = FakeRuntime(capacity_bytes=MB, gates={"a": asyncio.Event()})
    async with engine(runtime) as e:
        await e.apply("p")
        await until(lambda: runtime.loads)
        await e.apply("q", "b")
        waiting = e.begin("q")
        await e.settle()
        await e.delete("q")
        await e.settle()
        assert isinstance(waiting.exception(), ModelNotFound)
        runtime.gates["a"].set()
        await e.reaches("p", "Loaded - UpToDate")
        assert len(runtime.loads) == 1


async def test_deleted_and_created_again_is_loaded_again():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with engine(runtime) as e:
        await e.apply("p")
        await until(lambda: runtime.loads)
        await e.delete("p")
        model = await e.apply("p")
        runtime.gates["a"].set()
        assert await e.ask("p") == model
        await e.settle()
        assert list(runtime.loaded) == [model]


async def test_failed_model_that_is_deleted_is_forgotten():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with engine(runtime) as e:
        model = await e.apply("p", "bad")
        await e.reaches("p", "Failed - UpToDate")
        await e.delete("p")
        assert e.node.copy(model) is None
        runtime.failures.clear()
        await e.apply("p", "bad")
        await e.reaches("p", "Loaded - UpToDate")


async def test_request_moves_a_fill_up_and_it_may_evict_then():
    runtime = FakeRuntime(is_up=False, capacity_bytes=MB)
    async with engine(runtime) as e:
        await e.apply("p")
        await e.apply("q", "b")
        waiting = e.begin("q")
        await e.settle()
        runtime.come_back()
        assert (await waiting).id == model_of("q", "b").id
        assert e.row("p") == "Standby - UpToDate"


async def test_copy_larger_than_expected_evicts_the_least_recently_used():
    runtime = FakeRuntime(capacity_bytes=3 * MB)
    async with engine(runtime) as e:
        for name in "xyz":
            await e.apply(name, name)
            await e.ask(name)
            await e.settle()
        await e.delete("z")
        await e.settle()
        runtime.default_size_bytes = 2 * MB  # it was estimated at one
        await e.apply("w", "w")
        await e.ask("w")
        await e.settle()
        assert e.row("x") == "Standby - UpToDate"
        assert e.row("y") == "Loaded - UpToDate"


async def test_two_loads_that_end_in_one_moment_forget_nobody_who_waits():
    runtime = FakeRuntime(capacity_bytes=2 * MB, sizes={"big": 2 * MB})
    runtime.gates = {"x": asyncio.Event(), "z": asyncio.Event()}
    runtime.failures = {"z": "no such object"}
    async with engine(runtime) as e:
        await e.apply("x", "x")
        await e.apply("z", "z")
        first = e.begin("x")
        await until(lambda: len(runtime.loads) == 2)
        await e.apply("big", "big")
        waiting = e.begin("big")
        await e.settle()
        runtime.gates["z"].set()
        runtime.gates["x"].set()
        (await first).leave()
        async with asyncio.timeout(10.0):
            assert (await waiting).id == model_of("big", "big").id


async def test_predictor_is_seen_before_its_model():
    async with engine() as e:
        late = model_of("p")
        key = records.predictor_key(late.predictor)
        value = records.encode(predictor("p", active=late.id))
        await e.registry.commit([Put(key, value)])
        waiting = e.begin("p")
        await e.settle()
        assert not waiting.done()
        await e.registry.commit([Put(records.model_key(late.id), records.encode(late))])
        assert (await waiting).id == late.id


async def test_target_is_seen_before_its_model():
    async with engine() as e:
        active = await e.apply("p")
        await e.ask("p")
        await e.settle()
        late = model_of("p", "b")
        moved = predictor("p", active=active, target=late.id, served=True)
        await e.registry.commit([Put(records.predictor_key(late.predictor), records.encode(moved))])
        await e.settle()
        assert e.row("p") == "Loaded Loading InProgress"
        await e.registry.commit([Put(records.model_key(late.id), records.encode(late))])
        await e.reaches("p", "Loaded - UpToDate")
        assert await e.ask("p") == late.id


class SlowStore(MemoryRegistry):
    """Between what is read and what is written on account of it, others come."""

    async def get(self, key: str) -> Entry | None:
        entry = await super().get(key)
        await asyncio.sleep(0.01)
        return entry


async def test_writers_of_one_predictor_all_take_effect():
    async with engine(registry=SlowStore(clock=loop_time_s)) as e:
        await e.apply("p")
        await e.ask("p")
        async with asyncio.TaskGroup() as group:
            for path in "bcde":
                group.create_task(e.apply("p", path))
        target = e.predictor("p").target
        await until(lambda: e.predictor("p").active == target)
        assert e.predictor("p").generation == 5
        assert await e.ask("p") == target
        await e.settle()
        assert len(await e.stored(records.MODELS)) == 1


async def test_listeners_hear_of_each_predictor_that_changes():
    heard: list[frozenset[str]] = []
    async with engine() as e:
        e.node.listeners.add(heard.append)
        await e.apply("p")
        await e.reaches("p", "Loaded - UpToDate")
    assert heard
    assert set().union(*heard) == {"p"}


# Draining.


async def test_draining_node_serves_what_it_has_and_loads_nothing():
    async with engine() as e:
        model = await e.apply("p")
        await e.ask("p")
        await e.apply("q", "b")
        await e.reaches("q", "Loaded - UpToDate")
        changed = asyncio.get_running_loop().create_task(e.node.state_changed())
        await e.settle()
        e.node.drain()
        await changed
        e.node.drain()
        assert e.node.is_draining
        assert await e.ask("p") == model
        await e.delete("q")
        await e.apply("q", "c")
        with pytest.raises(Unavailable):
            await e.ask("q")


async def test_draining_node_stays_so_when_its_runtime_comes_and_goes():
    runtime = FakeRuntime()
    async with engine(runtime, patience_s=5.0) as e:
        e.node.drain()
        runtime.die()
        await asyncio.sleep(10.0)
        runtime.come_back()
        await e.settle()
        assert e.node.is_draining


# The store.


class MoodyStore(MemoryRegistry):
    """Refuses so many commits that change a Predictor from now on."""

    refusals = 0

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        if self.refusals and any(op.key.startswith(records.PREDICTORS) for op in ops):
            self.refusals -= 1
            raise Unavailable("the store is away")
        return await super().commit(ops, checks)


async def test_switch_that_the_store_refuses_is_tried_again():
    registry = MoodyStore(clock=loop_time_s)
    async with engine(registry=registry) as e:
        await e.apply("p", "a")
        await e.ask("p")
        await e.settle()
        target = await e.apply("p", "b")
        registry.refusals = 3
        await until(lambda: e.predictor("p").active == target)
        assert registry.refusals == 0


def put(record) -> Change:
    keys = {
        CopyRecord: lambda: records.copy_key(record.model, record.node),
        NodeRecord: lambda: records.node_key(record.id),
        Predictor: lambda: records.predictor_key(record.name),
    }
    return Change(keys[type(record)](), record, Revision(1))


def test_intake_takes_what_others_write_and_not_what_is_its_own():
    view = View()
    changes = (
        put(predictor("p", active="p-1")),
        put(copy("p-1", CopyState.LOADED, "n1")),
        put(copy("p-1", CopyState.LOADED, "n2")),
        put(node("n1")),
        put(node("n2")),
    )
    taken = take_in(view, changes, own=NodeId("n1"), going=lambda _: None, changing=lambda _: None)
    assert taken.touched == {"p"}
    assert set(view.copies(ModelId("p-1"))) == {"n2"}
    assert set(view.nodes) == {"n2"}
    gone = tuple(Change(change.key, None, Revision(2)) for change in changes)
    assert take_in(
        view, gone, own=NodeId("n1"), going=lambda _: None, changing=lambda _: None
    ).touched == {"p"}
    assert (view.predictors, view.nodes, view.copies(ModelId("p-1"))) == ({}, {}, {})


@pytest.mark.parametrize(
    "key", ["copies/x", "copies/", "copies/x/y/z", "nodes/x/y", "claims/x", "unknown", "models/x"]
)
@pytest.mark.parametrize("value", [None, b"nonsense", b"{}"])
def test_intake_survives_any_key_and_value(key, value, caplog):
    view = View()
    news = Change(key, value and Reading()(key, value), Revision(1))
    taken = take_in(view, (news,), own=NodeId("n1"), going=lambda _: None, changing=lambda _: None)
    assert taken.touched == frozenset()
    assert (view.predictors, view.models, view.nodes) == ({}, {}, {})


async def test_record_that_cannot_be_read_stops_nothing():
    async with engine() as e:
        await e.registry.commit([Put("predictors/broken", b"[]"), Put("copies/x", b"1")])
        await e.registry.commit([Delete("predictors/broken"), Delete("copies/x")])
        await e.apply("p")
        await e.ask("p")


def of_state(e: Engine, model, kind) -> bool:
    there = e.node.copy(model)
    return there is not None and isinstance(there.state, kind)


async def test_owner_who_asks_again_makes_a_failed_model_load_again():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with engine(runtime) as e:
        model = await e.apply("p", "bad")
        await until(lambda: of_state(e, model, Failed))
        runtime.failures.clear()
        await e.apply("p", "bad")
        await until(lambda: of_state(e, model, Loaded))
        await e.apply("p", "bad")
        assert of_state(e, model, Loaded)


async def test_predictor_of_before_the_runtime_came_up_is_loaded_once_it_is():
    runtime = FakeRuntime(is_up=False)
    async with engine(runtime) as e:
        model = await e.apply("p", "a")
        await asyncio.sleep(5)
        runtime.come_back()
        await until(lambda: model in runtime.loaded)


async def test_what_changes_in_a_predictor_of_which_nothing_was_told_is_told():
    async with engine() as e:
        key = records.predictor_key(predictor("p").name)
        for generation in (1, 2):  # without its model, so that nothing else happens to it
            await e.registry.commit(
                [Put(key, records.encode(predictor("p", generation=generation)))]
            )
            await e.settle()
        told = [it.what for it in e.node.history.of(predictor("p").name)]
        assert told == ["Created", "Configured"]
