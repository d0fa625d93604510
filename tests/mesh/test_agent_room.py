"""Room for loads: who gets it first, and that whoever gives up gives it back."""

import asyncio
from dataclasses import dataclass, field

import pytest

from mesh.agent.copy import Copy, NotWanted, Purpose
from mesh.agent.room import DEFAULT_SIZE_BYTES, Room
from mesh.core import copies
from mesh.core.errors import ModelLoadFailed
from mesh.core.ids import ModelId
from mesh.ops.tasks import Tasks
from tests.support.builders import model_of
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s


@dataclass
class Host:
    """A node of which only the room is real: a copy goes no further than RoomGiven."""

    runtime: FakeRuntime
    tasks: Tasks = field(default_factory=Tasks)
    evicted: list[ModelId] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    outcomes: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.room = Room(self.runtime, self.evict, loop_time_s)

    def evict(self, model: ModelId) -> None:
        self.evicted.append(model)
        self.room.cache.leave(model)

    def now(self) -> float:
        return loop_time_s()

    async def find_room(self, copy: Copy) -> None:
        name = copy.model.predictor
        try:
            await self.room.find(copy)
        except NotWanted:
            self.outcomes[name] = "not wanted"
            raise
        except ModelLoadFailed as error:
            self.outcomes[name] = error.cause
            raise
        self.given.append(name)

    async def load(self, copy: Copy) -> int:
        return await asyncio.get_running_loop().create_future()

    async def unload(self, model: ModelId) -> None:
        self.room.cache.drop(model)
        self.room.changed()

    def changed(self, copy: Copy, before: copies.State) -> None:
        self.room.loading += isinstance(copy.state, copies.Loading)
        self.room.loading -= isinstance(before, copies.Loading)
        match copy.state:
            case copies.Gone() | copies.Failed() | copies.Queued():
                self.room.cache.drop(copy.id)
                copy.entry = None
            case copies.Loaded():
                assert copy.entry is not None
                copy.entry.pins -= 1
        self.room.changed()

    def unpinned(self, copy: Copy) -> None:
        self.room.changed()

    def ask(self, name: str, purpose: Purpose = Purpose.USE, **fields) -> Copy:
        """A copy of this Predictor's model, whose path is its name; it asks for room at once."""
        model = model_of(name, path=name)
        return Copy(model, self, "address", purpose, drain_limit_s=30.0, **fields)

    async def ready(self) -> None:
        info = await self.runtime.status()
        assert info is not None
        self.room.open(info)


async def settle() -> None:
    await asyncio.sleep(0.1)


async def ready_host(**fields) -> Host:
    """Sizes of models by name, in MB, where `sizes` is given."""
    sizes = {name: size * MB for name, size in fields.pop("sizes", {}).items()}
    host = Host(FakeRuntime(sizes=sizes, **fields))
    await host.ready()
    return host


async def loaded(host: Host, name: str) -> Copy:
    copy = host.ask(name)
    await settle()
    assert name in host.given
    copy.send(copies.LoadDone(0))
    return copy


async def test_room_waits_for_the_runtime():
    host = Host(FakeRuntime())
    host.ask("a")
    await settle()
    assert host.given == []
    await host.ready()
    await settle()
    assert host.given == ["a"]


async def test_room_is_as_large_as_the_runtime_says_or_by_default():
    host = await ready_host(sizes={"big": 3})
    for name, size_bytes in (("big", 3 * MB), ("small", MB)):
        copy = host.ask(name)
        await settle()
        assert copy.entry is not None
        assert copy.entry.size_bytes == size_bytes
    silent = await ready_host(default_size_bytes=0)
    copy = silent.ask("a")
    await settle()
    assert copy.entry is not None
    assert copy.entry.size_bytes == DEFAULT_SIZE_BYTES


async def test_room_where_the_runtime_does_not_estimate_is_of_the_default_size():
    host = await ready_host(is_mute=True)
    copy = host.ask("a")
    await settle()
    assert host.given == ["a"]
    assert copy.entry is not None
    assert copy.entry.size_bytes == MB


async def test_room_for_a_model_too_large_for_the_node_fails_its_load():
    host = await ready_host(sizes={"a": 11})
    copy = host.ask("a")
    await settle()
    assert isinstance(copy.state, copies.Failed)
    assert "more than" in host.outcomes["a"]


async def test_room_is_made_by_evicting_for_use_and_not_for_filling():
    host = await ready_host(capacity_bytes=MB)
    first = await loaded(host, "a")
    host.ask("fill", Purpose.FILL)
    await settle()
    assert host.outcomes == {"fill": "not wanted"}
    host.ask("use")
    await settle()
    assert host.evicted == [first.id]
    assert "use" not in host.given
    await host.unload(first.id)
    await settle()
    assert "use" in host.given


async def test_room_beside_a_protected_model_is_not_taken_from_it():
    host = await ready_host(capacity_bytes=2 * MB, sizes={"target": 2})
    active = await loaded(host, "a")
    host.ask("target", Purpose.TARGET, protected=frozenset({active.id}))
    await settle()
    assert host.evicted == []
    assert "beside" in host.outcomes["target"]


async def test_no_more_load_at_once_than_the_runtime_has_slots():
    host = await ready_host(max_loading=2)
    loading = [host.ask(name) for name in "abc"]
    await settle()
    assert host.given == ["a", "b"]
    loading[0].send(copies.LoadDone(0))
    await settle()
    assert host.given == ["a", "b", "c"]


async def test_runtime_that_names_no_number_of_slots_has_one():
    host = await ready_host(max_loading=0)
    first = host.ask("a")
    host.ask("b")
    await settle()
    assert host.given == ["a"]
    first.send(copies.LoadFailed("bad", holds_memory=False))
    await settle()
    assert host.given == ["a", "b"]


async def test_slot_goes_to_use_before_target_before_fill():
    host = await ready_host(max_loading=1)
    first = host.ask("first")
    await settle()
    waiting = {
        "fill": host.ask("fill", Purpose.FILL),
        "target": host.ask("target", Purpose.TARGET),
        "use": host.ask("use"),
        "use2": host.ask("use2"),
    }
    await settle()
    order = ["first", "use", "use2", "target", "fill"]
    for name in order[1:]:
        first.send(copies.LoadDone(0))
        await settle()
        first = waiting[name]
    assert host.given == order


async def test_load_that_a_request_joins_moves_up():
    host = await ready_host(max_loading=1)
    first = host.ask("first")
    await settle()
    host.ask("target", Purpose.TARGET)
    fill = host.ask("fill", Purpose.FILL)
    await settle()
    fill.purpose = Purpose.USE
    host.room.changed()
    first.send(copies.LoadDone(0))
    await settle()
    assert host.given == ["first", "fill"]


async def test_room_that_comes_free_goes_to_use_before_target():
    host = await ready_host(capacity_bytes=MB)
    first = host.ask("first")
    await settle()
    for n in range(5):
        host.ask(f"target{n}", Purpose.TARGET)
    await settle()
    host.ask("use")
    await settle()
    first.send(copies.LoadFailed("bad", holds_memory=False))
    await settle()
    assert host.given == ["first", "use"]


@pytest.mark.parametrize("purpose", [Purpose.TARGET, Purpose.FILL])
async def test_room_that_use_waits_for_is_not_taken_by_others(purpose):
    host = await ready_host(capacity_bytes=2 * MB, sizes={"use": 2})
    first = host.ask("first")
    await settle()
    use = host.ask("use")
    await settle()
    host.ask("late", purpose)
    await settle()
    assert host.given == ["first"]
    first.send(copies.LoadFailed("bad", holds_memory=False))
    await settle()
    assert host.given == ["first", "use"]
    use.send(copies.LoadFailed("bad", holds_memory=False))
    await settle()
    assert ("late" in host.given) == (purpose is Purpose.TARGET)


async def test_use_that_gives_up_waiting_lets_a_target_in():
    host = await ready_host(capacity_bytes=2 * MB, sizes={"use": 2})
    host.ask("first")
    await settle()
    use = host.ask("use")
    await settle()
    host.ask("target", Purpose.TARGET)
    await settle()
    use.send(copies.Leave())
    await settle()
    assert host.given == ["first", "target"]


async def test_load_that_is_given_up_while_it_waits_for_a_slot_gives_back_its_room():
    host = await ready_host(capacity_bytes=2 * MB, max_loading=1)
    host.ask("first")
    await settle()
    waiting = host.ask("waiting")
    await settle()
    assert host.room.cache.used_bytes == 2 * MB
    third = host.ask("third")
    await settle()
    assert third.entry is None
    waiting.send(copies.Leave())
    await settle()
    assert isinstance(waiting.state, copies.Gone)
    assert third.entry is not None
    assert host.room.cache.used_bytes == 2 * MB


async def test_load_that_is_given_up_and_begun_again_keeps_the_new_room():
    host = await ready_host(max_loading=1)
    host.ask("first")
    await settle()
    for _ in range(3):
        waiting = host.ask("again")
        await settle()
        waiting.send(copies.Leave())
        host.ask("again").send(copies.Leave())
    last = host.ask("again")
    await settle()
    assert last.entry is not None
    assert last.id in host.room.cache
    assert host.room.cache.used_bytes == 2 * MB


async def test_load_that_is_stopped_while_it_waits_for_a_slot_gives_back_its_room():
    host = await ready_host(max_loading=1)
    host.ask("first")
    await settle()
    waiting = host.ask("waiting")
    await settle()
    assert waiting.entry is not None
    await host.tasks.close()
    assert waiting.entry is None
    assert waiting.id not in host.room.cache
    assert host.room.cache.used_bytes == MB


async def test_load_that_is_given_up_while_it_waits_for_room_leaves_nothing():
    host = await ready_host(capacity_bytes=MB)
    first = host.ask("first")
    await settle()
    waiting = host.ask("waiting")
    await settle()
    waiting.send(copies.Leave())
    first.send(copies.LoadFailed("bad", holds_memory=False))
    await settle()
    assert host.given == ["first"]
    assert host.room.cache.used_bytes == 0


async def test_model_that_requests_wait_for_is_evicted_once_they_have_their_answer():
    host = await ready_host(capacity_bytes=MB)
    first = await loaded(host, "first")
    first.pin()
    host.ask("second")
    await settle()
    assert host.evicted == []
    first.unpin()
    await settle()
    assert host.evicted == [first.id]


async def test_pins_from_before_the_room_was_given_count():
    host = await ready_host(capacity_bytes=MB, max_loading=1)
    first = host.ask("first")
    first.pin()
    await settle()
    first.send(copies.LoadDone(0))
    assert first.entry is not None
    assert first.entry.pins == 1
    first.unpin()
    assert first.entry.pins == 0


async def test_runtime_that_goes_while_a_load_waits_is_waited_for():
    host = await ready_host(max_loading=1)
    first = host.ask("first")
    await settle()
    host.ask("second")
    await settle()
    host.room.close()
    first.send(copies.LoadFailed("bad", holds_memory=False))
    host.ask("third")
    await settle()
    assert host.given == ["first"]
    await host.ready()
    await settle()
    assert host.given == ["first", "second"]


async def test_what_is_handed_over_takes_room_only_from_what_was_used_long_before():
    host = await ready_host(capacity_bytes=2 * MB)
    old = await loaded(host, "old")
    await asyncio.sleep(100)
    await loaded(host, "new")
    late, early = loop_time_s() - 30, loop_time_s() - 50
    host.ask("early", Purpose.EXTRA, last_use_s=early, is_handed_over=True)
    await settle()
    assert host.outcomes == {"early": "not wanted"}
    fresh = host.ask("late", Purpose.EXTRA, last_use_s=late, is_handed_over=True)
    await settle()
    assert host.evicted == [old.id]
    host.room.cache.drop(old.id)
    host.room.changed()
    await settle()
    assert fresh.entry is not None
