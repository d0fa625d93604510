"""The life of a copy: the legal moves, written down once more, and what holds in any order."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import copies
from mesh.core.copies import (
    AdapterLost,
    AskLoad,
    AskRoom,
    AskUnload,
    AwaitDrain,
    Drained,
    Draining,
    Failed,
    Forgiven,
    Gone,
    Leave,
    LoadDone,
    Loaded,
    LoadFailed,
    Loading,
    Queued,
    RoomGiven,
    RuntimeLost,
    Stop,
    UnloadDone,
    UnloadFailed,
    Unloading,
)
from mesh.core.records import CopyState

NOW = 7.0
STATES = [
    Queued(1.0),
    Loading(1.0, 5),
    Loaded(1.0, 6),
    Draining(1.0, 6),
    Unloading(1.0, 6),
    Unloading(1.0, 6, failure="bad"),
    Unloading(1.0, 6, failure="away", is_cut_off=True),
    Failed(1.0, "bad"),
    Gone(1.0),
]
EVENTS = [
    RoomGiven(5),
    LoadDone(6),
    LoadFailed("bad", holds_memory=False),
    LoadFailed("bad", holds_memory=True),
    LoadFailed("away", holds_memory=True, is_cut_off=True),
    Leave(),
    Drained(),
    UnloadDone(),
    UnloadFailed(),
    RuntimeLost(),
    AdapterLost(),
    Forgiven(),
]
# What must be done, by the task that is under way for it.
ASKS = {AskRoom: "room", AskLoad: "load", AskUnload: "unload"}


def legal(state, event):  # noqa: C901 - it is a table
    """The specification: the next state and the effects; None where the event is stale."""
    match state, event:
        case Queued(), RoomGiven():
            return Loading(NOW, 5), (AskLoad(),)
        case Queued(), LoadFailed(reason=reason):
            return Failed(NOW, reason), ()
        case Queued(), Leave():
            return Gone(NOW), (Stop(),)
        case Loading(), LoadDone():
            return Loaded(NOW, 6), ()
        case Loading(), LoadFailed(holds_memory=False):
            return Failed(NOW, "bad"), ()
        case Loading(), LoadFailed(reason=reason, is_cut_off=is_cut_off):
            return Unloading(NOW, 5, reason, is_cut_off=is_cut_off), (AskUnload(0.0),)
        case Loading(), Leave():
            return Unloading(NOW, 5), (Stop(), AskUnload(0.0))
        case Loading(), (RuntimeLost() | AdapterLost()):
            return Queued(NOW, losses=1), (Stop(), AskRoom())
        case Loaded(), Leave():
            return Draining(NOW, 6), (AwaitDrain(),)
        case ((Loaded() | Draining()), RuntimeLost()):
            return Gone(NOW), ()
        case Draining(), Drained():
            return Unloading(NOW, 6), (AskUnload(0.0),)
        case Unloading(failure=""), UnloadDone():
            return Gone(NOW), ()
        case Unloading(failure=failure), UnloadDone():
            return Failed(NOW, failure), ()
        case Unloading(failure=failure, is_cut_off=is_cut_off), UnloadFailed():
            again = Unloading(1.0, 6, failure, attempts=2, is_cut_off=is_cut_off)
            return again, (AskUnload(0.2),)
        case Unloading(failure=failure), Leave() if failure:
            return Unloading(1.0, 6), ()
        case Unloading(failure=""), RuntimeLost():
            return Gone(NOW), (Stop(),)
        case Unloading(is_cut_off=True), (RuntimeLost() | AdapterLost()):
            return Queued(NOW, losses=1), (Stop(), AskRoom())
        case Unloading(failure=failure), RuntimeLost():
            return Failed(NOW, failure), (Stop(),)
        case Failed(), (Leave() | Forgiven()):
            return Gone(NOW), ()
        case _:
            return None


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_copy_moves_as_specified_and_stale_events_change_nothing(state, event):
    after, effects = copies.step(state, event, now=NOW)
    expected = legal(state, event)
    if expected is None:
        assert after is state
        assert effects == ()
    else:
        assert (after, effects) == expected


@pytest.mark.parametrize(
    ("state", "shown", "held_bytes"),
    list(
        zip(
            STATES,
            [
                CopyState.LOADING,
                CopyState.LOADING,
                CopyState.LOADED,
                CopyState.UNLOADING,
                CopyState.UNLOADING,
                CopyState.LOADING,
                CopyState.LOADING,
                CopyState.FAILED,
                None,
            ],
            [0, 5, 6, 6, 6, 6, 6, 0, 0],
            strict=True,
        )
    ),
)
def test_copy_shows_one_word_and_holds_what_the_runtime_holds(state, shown, held_bytes):
    assert copies.shown(state) == shown
    assert copies.held_bytes(state) == held_bytes


def test_load_of_unknown_size_holds_what_was_asked_for():
    loaded, _ = copies.step(Loading(1.0, 5), LoadDone(0), now=NOW)
    assert loaded == Loaded(NOW, 5)


def test_unload_is_tried_again_ever_more_slowly_up_to_a_bound():
    state, delays_s = Unloading(1.0, 6), []
    for _ in range(40):
        state, (ask,) = copies.step(state, UnloadFailed(), now=NOW)
        delays_s.append(ask.delay_s)
    assert delays_s[:4] == [0.2, 0.4, 0.8, 1.6]
    assert delays_s == sorted(delays_s)
    assert set(delays_s[6:]) == {10.0}


@dataclass
class Carrier:
    """Carries effects out as a driver does: at most one task, and a drain beside it."""

    state: copies.State = field(init=False)
    task: str | None = None
    is_draining: bool = False
    loads_begun: int = 0
    loads_ended: int = 0
    # Why an unload may be asked: the copy has drained, or a load did not end well.
    may_unload: bool = False
    held_bytes: int = 0

    def __post_init__(self):
        self.state, effects = copies.start(now=0.0)
        self.carry_out(effects)

    def send(self, event):
        before = self.state
        self.ends_task(event)
        self.state, effects = copies.step(before, event, now=NOW)
        self.carry_out(effects)
        self.check_bytes(event)

    def ends_task(self, event):
        """The outcome of a task is the end of it."""
        match event:
            case RoomGiven() if self.task == "room":
                self.task = None
            case LoadDone() | LoadFailed() if self.task == "load":
                self.task = None
                self.loads_ended += 1
                self.may_unload = not isinstance(event, LoadDone)
            case LoadFailed() if self.task == "room":
                self.task = None
            case UnloadDone() | UnloadFailed() if self.task == "unload":
                self.task = None
                self.may_unload = isinstance(event, UnloadFailed)
            case Drained():
                self.is_draining = False
                self.may_unload = True

    def carry_out(self, effects):
        for effect in effects:
            match effect:
                case Stop():
                    self.loads_ended += self.task == "load"
                    self.may_unload = self.task == "load"
                    self.task = None
                case AwaitDrain():
                    self.is_draining = True
                case AskRoom() | AskLoad() | AskUnload():
                    assert self.task is None
                    self.task = ASKS[type(effect)]
            if isinstance(effect, AskLoad):
                self.loads_begun += 1
            if isinstance(effect, AskUnload):
                assert self.may_unload

    def check_bytes(self, event):
        """What is held changes when room is given, a load ends and nothing is left, and never
        else."""
        held = copies.held_bytes(self.state)
        match self.state:
            case Queued() | Failed() | Gone():
                assert held == 0
            case Loading() if isinstance(event, RoomGiven):
                assert held == event.size_bytes
            case Loaded() if isinstance(event, LoadDone):
                assert held == event.size_bytes
            case _:
                assert held == self.held_bytes
        self.held_bytes = held

    def outcomes(self):
        """What may happen next of itself: the ends of what is under way."""
        match self.task:
            case "room":
                yield RoomGiven(5)
                yield LoadFailed("no room", holds_memory=False)
            case "load":
                yield LoadDone(6)
                yield LoadFailed("bad", holds_memory=False)
                yield LoadFailed("bad", holds_memory=True)
                yield LoadFailed("away", holds_memory=True, is_cut_off=True)
            case "unload":
                yield UnloadDone()
                yield UnloadFailed()
        if self.is_draining:
            yield Drained()


FROM_OUTSIDE = [Leave(), RuntimeLost(), AdapterLost(), Forgiven()]
AT_REST = (Loaded, Failed, Gone)


def played(data, turns: int) -> Carrier:
    """A copy to which anything possible happened, and stale events in between."""
    carrier = Carrier()
    for _ in range(turns):
        possible = [*carrier.outcomes(), *FROM_OUTSIDE]
        carrier.send(data.draw(st.sampled_from(possible)))
    return carrier


@given(st.data(), st.integers(0, 15))
def test_copy_has_one_outcome_a_load_and_one_task_at_a_time(data, turns):
    carrier = played(data, turns)
    is_loading = isinstance(carrier.state, Loading)
    assert is_loading == (carrier.task == "load")
    assert carrier.loads_begun == carrier.loads_ended + is_loading
    assert carrier.is_draining or not isinstance(carrier.state, Draining)
    if isinstance(carrier.state, AT_REST):
        assert carrier.task is None


@given(st.data(), st.integers(0, 15))
def test_copy_left_alone_comes_to_rest(data, turns):
    carrier = played(data, turns)
    for _ in range(5):
        happening = [e for e in carrier.outcomes() if not isinstance(e, UnloadFailed)]
        if not happening or isinstance(carrier.state, AT_REST):
            break
        carrier.send(data.draw(st.sampled_from(happening)))
    assert isinstance(carrier.state, AT_REST)


@given(st.data(), st.integers(0, 15))
def test_copy_that_is_told_to_leave_is_gone_in_the_end(data, turns):
    carrier = played(data, turns)
    carrier.send(Leave())
    for _ in range(3):
        happening = [e for e in carrier.outcomes() if isinstance(e, Drained | UnloadDone)]
        if isinstance(carrier.state, Gone):
            break
        carrier.send(happening[0])
    assert isinstance(carrier.state, Gone)


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_event_that_comes_twice_counts_once_but_for_a_failed_unload(state, event):
    once, _ = copies.step(state, event, now=NOW)
    twice, effects = copies.step(once, event, now=NOW + 1)
    if isinstance(event, UnloadFailed) and isinstance(state, Unloading):
        assert isinstance(twice, Unloading)
    else:
        assert twice is once
        assert effects == ()


@pytest.mark.parametrize("lost", [RuntimeLost(), AdapterLost()], ids=str)
def test_model_that_takes_the_runtime_down_again_and_again_is_failed(lost):
    state, _ = copies.start(now=0.0)
    for _ in range(copies.MAX_LOSSES):
        assert isinstance(state, Queued)
        state, _ = copies.step(state, RoomGiven(5), now=NOW)
        state, effects = copies.step(state, lost, now=NOW)
    assert state == Failed(NOW, "the runtime was lost 3 times while it was loading this model")
    assert effects == (Stop(),)


def test_loads_that_fail_as_the_runtime_is_lost_count_as_losses():
    state = Loading(0.0, 5, losses=2)
    state, _ = copies.step(state, LoadFailed("gone", holds_memory=True, is_cut_off=True), now=NOW)
    state, _ = copies.step(state, RuntimeLost(), now=NOW)
    assert isinstance(state, Failed)
