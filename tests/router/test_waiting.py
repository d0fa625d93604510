"""The waiting room, with a resolution that the test ends by hand: no sockets, no sleeps."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import DeadlineExceeded, ModelNotFound, Overloaded
from mesh.core.ids import ModelId
from router.port import Upstream
from router.waiting import Limits, WaitingRoom

MODEL = ModelId("p-1")


@dataclass
class Answer:
    """An upstream that counts who is in."""

    id: ModelId = MODEL
    address: str = "127.0.0.1:1"
    entered: int = 0
    left: int = 0

    def enter(self, now: float) -> None:
        self.entered += 1

    def leave(self) -> None:
        self.left += 1

    @property
    def held(self) -> int:
        return self.entered - self.left


@dataclass
class Resolver:
    """Each call waits for `answer` or `fail`; what `resolve` returns was entered once."""

    upstream: Answer = field(default_factory=Answer)
    calls: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    pending: dict[str, asyncio.Future[None]] = field(default_factory=dict)

    async def resolve(self, name: str) -> Upstream:
        self.calls.append(name)
        self.pending[name] = asyncio.get_running_loop().create_future()
        try:
            await self.pending[name]
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.upstream.enter(0.0)
        return self.upstream

    def answer(self, name: str = "p") -> None:
        self.pending[name].set_result(None)

    def fail(self, error: Exception, name: str = "p") -> None:
        self.pending[name].set_exception(error)


def begin(room: WaitingRoom, name: str = "p", timeout_s: float | None = None):
    return asyncio.get_running_loop().create_task(room.wait(name, timeout_s))


async def turns(count: int = 5) -> None:
    """Lets everything run that can, without any time passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def make(limits: Limits | None = None) -> tuple[Resolver, WaitingRoom]:
    resolver = Resolver()
    return resolver, WaitingRoom(resolver.resolve, limits or Limits())


async def ended(*tasks: asyncio.Task) -> list[object]:
    """What each came to: its result, its error or "cancelled"."""
    await asyncio.wait(tasks)
    return ["cancelled" if t.cancelled() else t.exception() or t.result() for t in tasks]


async def test_many_waiters_of_a_name_are_one_resolution():
    resolver, room = make()
    waiters = [begin(room) for _ in range(20)]
    await turns()
    assert room.waiting == 20
    resolver.answer()
    assert await ended(*waiters) == [resolver.upstream] * 20
    assert resolver.calls == ["p"]
    assert resolver.upstream.held == 20
    assert room.waiting == 0


async def test_waiters_of_two_names_are_two_resolutions():
    resolver, room = make()
    first, second = begin(room, "p"), begin(room, "q")
    await turns()
    resolver.answer("q")
    await second
    assert not first.done()
    resolver.answer("p")
    await first
    assert sorted(resolver.calls) == ["p", "q"]


async def test_request_after_an_answer_is_a_new_resolution():
    resolver, room = make()
    for _ in range(2):
        waiter = begin(room)
        await turns()
        resolver.answer()
        await waiter
    assert resolver.calls == ["p", "p"]


async def test_waiter_that_is_cancelled_changes_nothing_for_the_others():
    resolver, room = make()
    leaving, staying = begin(room), begin(room)
    await turns()
    leaving.cancel()
    await turns()
    assert room.waiting == 1
    resolver.answer()
    assert await ended(leaving, staying) == ["cancelled", resolver.upstream]
    assert resolver.cancelled == []
    assert resolver.upstream.held == 1


async def test_last_waiter_that_is_cancelled_ends_the_resolution():
    resolver, room = make()
    waiters = [begin(room) for _ in range(3)]
    await turns()
    for waiter in waiters:
        waiter.cancel()
    assert await ended(*waiters) == ["cancelled"] * 3
    await turns()
    assert resolver.cancelled == ["p"]
    assert resolver.upstream.entered == 0
    assert room.waiting == 0


async def test_request_after_all_gave_up_asks_anew():
    resolver, room = make()
    first = begin(room)
    await turns()
    first.cancel()
    await ended(first)
    second = begin(room)
    await turns()
    assert resolver.calls == ["p", "p"]
    resolver.answer()
    assert await second is resolver.upstream
    assert resolver.upstream.held == 1


@pytest.mark.parametrize("timeout_s", [0.0, 0.01])
async def test_waiter_whose_time_is_over_is_told_so(timeout_s):
    resolver, room = make()
    with pytest.raises(DeadlineExceeded) as caught:
        await room.wait("p", timeout_s)
    assert caught.value.waited_s >= timeout_s
    assert "predictor 'p' was still loading" in caught.value.message
    await turns()
    assert resolver.cancelled == resolver.calls
    assert room.waiting == 0


async def test_waiter_whose_time_is_over_changes_nothing_for_the_others():
    resolver, room = make()
    patient, hasty = begin(room), begin(room, timeout_s=0.01)
    with pytest.raises(DeadlineExceeded):
        await hasty
    resolver.answer()
    assert await patient is resolver.upstream
    assert resolver.upstream.held == 1


async def test_too_many_for_one_name_are_refused_and_others_are_not():
    resolver, room = make(Limits(per_model=2))
    waiters = [begin(room), begin(room), begin(room, "q")]
    await turns()
    with pytest.raises(Overloaded, match="requests that wait for predictor 'p': the limit is 2"):
        await room.wait("p", None)
    assert room.waiting == 3
    resolver.answer("p")
    resolver.answer("q")
    await ended(*waiters)
    assert resolver.upstream.held == 3


async def test_too_many_on_the_node_are_refused_until_one_has_gone():
    resolver, room = make(Limits(per_node=2))
    waiters = [begin(room, "p"), begin(room, "q")]
    await turns()
    with pytest.raises(Overloaded, match="requests that wait on this node: the limit is 2"):
        await room.wait("r", None)
    assert resolver.calls == ["p", "q"]
    waiters[0].cancel()
    await turns()
    third = begin(room, "r")
    await turns()
    assert resolver.calls == ["p", "q", "r"]
    for name in "qr":
        resolver.answer(name)
    await ended(waiters[1], third)


async def test_error_of_the_resolution_is_that_of_all_who_wait():
    resolver, room = make()
    waiters = [begin(room) for _ in range(3)]
    await turns()
    error = ModelNotFound("p")
    resolver.fail(error)
    assert await ended(*waiters) == [error] * 3
    assert room.waiting == 0
    again = begin(room)
    await turns()
    assert resolver.calls == ["p", "p"]
    again.cancel()
    await ended(again)


async def test_error_that_nobody_expected_leaves_nobody_waiting(caplog):
    resolver, room = make()
    waiters = [begin(room) for _ in range(3)]
    await turns()
    error = RuntimeError("a bug")
    resolver.fail(error)
    await turns()
    assert await ended(*waiters) == [error] * 3
    assert "task died" in caplog.text
    again = begin(room)
    await turns()
    resolver.answer()
    assert await again is resolver.upstream


async def test_answer_in_the_tick_of_a_cancellation_is_left_again():
    resolver, room = make()
    leaving, staying = begin(room), begin(room)
    await turns()
    resolver.answer()
    await asyncio.sleep(0)  # the resolution has landed, and nobody has been woken yet
    assert resolver.upstream.held == 2
    leaving.cancel()
    assert await ended(leaving, staying) == ["cancelled", resolver.upstream]
    assert resolver.upstream.held == 1


async def test_error_in_the_tick_of_a_cancellation_is_forgotten():
    resolver, room = make()
    leaving, staying = begin(room), begin(room)
    await turns()
    error = ModelNotFound("p")
    resolver.fail(error)
    await asyncio.sleep(0)
    leaving.cancel()
    assert await ended(leaving, staying) == ["cancelled", error]


async def test_resolution_that_ends_as_the_last_one_leaves_enters_nobody():
    resolver, room = make()
    waiter = begin(room)
    await turns()
    resolver.answer()
    waiter.cancel()
    assert await ended(waiter) == ["cancelled"]
    await turns()
    assert resolver.upstream.held == 0


async def test_closed_room_ends_its_resolutions():
    resolver, room = make()
    waiter = begin(room, timeout_s=0.01)
    await turns()
    await room.close()
    assert resolver.cancelled == ["p"]
    assert isinstance((await ended(waiter))[0], DeadlineExceeded)


STEPS = st.sampled_from(["join", "join", "cancel", "answer", "fail", "turn", "turn"])


async def play(steps: list[tuple[str, str]], pick: Callable[[int], int]) -> None:
    """Anything in any order; what is left waiting at the end gives up."""
    resolver, room = make(Limits(per_model=4, per_node=6))
    waiters: list[asyncio.Task] = []
    try:
        for step, name in steps:
            await play_step(resolver, room, waiters, step, name, pick)
        await turns()
    finally:  # also where the example ends in a draw
        for waiter in waiters:
            waiter.cancel()
        outcomes = await ended(*waiters) if waiters else []
    assert resolver.upstream.held == sum(outcome is resolver.upstream for outcome in outcomes)
    await turns()
    assert room.waiting == 0
    assert all(future.done() for future in resolver.pending.values())
    await room.close()


async def play_step(resolver, room, waiters, step, name, pick):
    pending = resolver.pending.get(name)
    match step:
        case "join":
            waiters.append(begin(room, name, 0.0 if pick(8) == 0 else None))
        case "cancel" if waiters:
            waiters[pick(len(waiters))].cancel()
        case "answer" if pending is not None and not pending.done():
            resolver.answer(name)
        case "fail" if pending is not None and not pending.done():
            resolver.fail(ModelNotFound(name), name)
        case _:
            await asyncio.sleep(0)


@settings(deadline=None)
@given(st.lists(st.tuples(STEPS, st.sampled_from("pq")), max_size=30), st.data())
def test_enters_and_leaves_balance_whatever_happens(steps, data):
    asyncio.run(play(steps, lambda count: data.draw(st.integers(0, count - 1))))
