"""The life of one copy: a model on this node.

Theory. A copy is `Queued` while it waits for room, a free loading slot and a living runtime;
`Loading` while the runtime is at it; then `Loaded` or, with a reason, `Failed`. On its way out it
is `Draining` (no new requests, those in flight finish) and then `Unloading` (the runtime is asked
to let go). It is over in `Gone`. A load that may have left something in the runtime is cleaned up
by way of `Unloading` before it is `Failed`. A runtime that dies takes everything that it held
with it; what was waiting or loading waits for it to come back, a few times. That a runtime cannot
be reached may be known first from the load that it cut off, so that such a failure counts only if
the runtime lives on.

An event that does not fit the state is stale and changes nothing: events cross on the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mesh.core.records import CopyState


@dataclass(frozen=True, slots=True)
class Queued:
    """`losses`: how often the runtime was lost while it was loading this model."""

    since_s: float
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Loading:
    since_s: float
    size_bytes: int
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    since_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Draining:
    since_s: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Unloading:
    """`failure` is what the copy becomes Failed with afterwards; empty: it is Gone.

    `is_cut_off`: the failure is forgotten if it turns out that the runtime was lost.
    `failure_bytes`: what the model takes, where that is known.
    """

    since_s: float
    size_bytes: int
    failure: str = ""
    attempts: int = 1
    is_cut_off: bool = False
    losses: int = 0
    failure_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """`size_bytes`: what the model takes, where that is known; the copy holds nothing."""

    since_s: float
    reason: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gone:
    since_s: float


State = Queued | Loading | Loaded | Draining | Unloading | Failed | Gone


@dataclass(frozen=True, slots=True)
class RoomGiven:
    """The cache holds `size_bytes` for it and a loading slot is free."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoadDone:
    """`size_bytes` 0: the runtime does not say, so that what was asked for stands."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """`holds_memory`: the runtime may still hold something of it.

    `is_cut_off`: it could not be reached any more; it holds memory then, as far as anybody knows.
    `size_bytes`: what the model takes, where that is known.
    """

    reason: str
    holds_memory: bool
    is_cut_off: bool = False
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """It is to go: evicted, or nobody wants the model any more."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Nothing is in flight any more, or the bound for that has passed."""


@dataclass(frozen=True, slots=True)
class UnloadDone:
    pass


@dataclass(frozen=True, slots=True)
class UnloadFailed:
    pass


@dataclass(frozen=True, slots=True)
class RuntimeLost:
    pass


@dataclass(frozen=True, slots=True)
class AdapterLost:
    """What is loaded still serves; a load that was under way has to begin again."""


@dataclass(frozen=True, slots=True)
class Forgiven:
    """A failure was forgotten: it expired, or what caused it changed."""


Event = (
    RoomGiven
    | LoadDone
    | LoadFailed
    | Leave
    | Drained
    | UnloadDone
    | UnloadFailed
    | RuntimeLost
    | AdapterLost
    | Forgiven
)


@dataclass(frozen=True, slots=True)
class AskLoad:
    """Have the runtime load it, then send LoadDone or LoadFailed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Give up what is waiting or under way for it."""


@dataclass(frozen=True, slots=True)
class AwaitDrain:
    """Send Drained once nothing is in flight, within the bound."""


@dataclass(frozen=True, slots=True)
class AskUnload:
    """Have the runtime let go of it after `delay_s`, then send UnloadDone or UnloadFailed."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class AskRoom:
    """Wait for the runtime, room and a slot, then send RoomGiven; or LoadFailed: none can come."""


Effect = AskRoom | AskLoad | Stop | AwaitDrain | AskUnload

UNLOAD_RETRY_S = 0.2
UNLOAD_RETRY_MAX_S = 10.0
# A model that takes the runtime down with it must not do so for ever.
MAX_LOSSES = 3

Move = Callable[[Any, Any, float], tuple[State, tuple[Effect, ...]]]


def start(*, now: float) -> tuple[State, tuple[Effect, ...]]:
    """A copy that is wanted."""
    return Queued(now), (AskRoom(),)


def step(state: State, event: Event, *, now: float) -> tuple[State, tuple[Effect, ...]]:
    """The state after `event`, and what must be done. `now` is in seconds since the epoch."""
    move = MOVES.get((type(state), type(event)))
    return (state, ()) if move is None else move(state, event, now)


def shown(state: State) -> CopyState | None:
    """What the store says of it; None where there is no copy to speak of."""
    match state:
        case Queued() | Loading():
            return CopyState.LOADING
        case Loaded():
            return CopyState.LOADED
        case Draining():
            return CopyState.UNLOADING
        case Unloading(failure=failure):
            return CopyState.LOADING if failure else CopyState.UNLOADING
        case Failed():
            return CopyState.FAILED
        case Gone():  # pragma: no branch - the last of the union
            return None


def held_bytes(state: State) -> int:
    """The room that it takes in the runtime."""
    match state:
        case Loading() | Loaded() | Draining() | Unloading():
            return state.size_bytes
        case _:
            return 0


def _begin(state: Queued, event: RoomGiven, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Loading(now, event.size_bytes, state.losses), (AskLoad(),)


def _succeed(state: Loading, event: LoadDone, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Loaded(now, event.size_bytes or state.size_bytes), ()


def _refuse(_: Queued, event: LoadFailed, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Failed(now, event.reason, event.size_bytes), ()


def _fail(state: Loading, event: LoadFailed, now: float) -> tuple[State, tuple[Effect, ...]]:
    if not event.holds_memory:
        return Failed(now, event.reason, event.size_bytes), ()
    failed = Unloading(
        now,
        state.size_bytes,
        event.reason,
        is_cut_off=event.is_cut_off,
        losses=state.losses,
        failure_bytes=event.size_bytes,
    )
    return failed, (AskUnload(0.0),)


def _abandon(_: Queued, event: Leave, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Gone(now), (Stop(),)


def _abort(state: Loading, event: Leave, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Unloading(now, state.size_bytes), (Stop(), AskUnload(0.0))


def _drain(state: Loaded, event: Leave, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Draining(now, state.size_bytes), (AwaitDrain(),)


def _drop_failure(state: Unloading, event: Leave, now: float) -> tuple[State, tuple[Effect, ...]]:
    if not state.failure:
        return state, ()
    return replace(state, failure="", is_cut_off=False), ()


def _unload(state: Draining, event: Drained, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Unloading(now, state.size_bytes), (AskUnload(0.0),)


def _let_go(state: Unloading, event: UnloadDone, now: float) -> tuple[State, tuple[Effect, ...]]:
    return _ended(state, now), ()


def _ended(state: Unloading, now: float) -> Failed | Gone:
    return Failed(now, state.failure, state.failure_bytes) if state.failure else Gone(now)


def _unload_again(
    state: Unloading, event: UnloadFailed, now: float
) -> tuple[State, tuple[Effect, ...]]:
    delay_s = min(UNLOAD_RETRY_S * 2 ** min(state.attempts - 1, 10), UNLOAD_RETRY_MAX_S)
    return replace(state, attempts=state.attempts + 1), (AskUnload(delay_s),)


def _wait_again(
    state: Loading | Unloading, event: RuntimeLost | AdapterLost, now: float
) -> tuple[State, tuple[Effect, ...]]:
    losses = state.losses + 1
    if losses >= MAX_LOSSES:
        reason = f"the runtime was lost {losses} times while it was loading this model"
        return Failed(now, reason), (Stop(),)
    return Queued(now, losses), (Stop(), AskRoom())


def _vanish(
    state: Loaded | Draining, event: RuntimeLost, now: float
) -> tuple[State, tuple[Effect, ...]]:
    return Gone(now), ()


def _vanish_in_unload(
    state: Unloading, event: RuntimeLost, now: float
) -> tuple[State, tuple[Effect, ...]]:
    if state.is_cut_off:
        return _wait_again(state, event, now)
    return _ended(state, now), (Stop(),)


def _wait_again_if_cut_off(
    state: Unloading, event: AdapterLost, now: float
) -> tuple[State, tuple[Effect, ...]]:
    return _wait_again(state, event, now) if state.is_cut_off else (state, ())


def _forget(_: Failed, event: Leave | Forgiven, now: float) -> tuple[State, tuple[Effect, ...]]:
    return Gone(now), ()


MOVES: Mapping[tuple[type, type], Move] = {
    (Queued, RoomGiven): _begin,  # Loading
    (Queued, LoadFailed): _refuse,  # Failed
    (Queued, Leave): _abandon,  # Gone
    (Loading, LoadDone): _succeed,  # Loaded
    (Loading, LoadFailed): _fail,  # Failed, or Unloading on the way there
    (Loading, Leave): _abort,  # Unloading
    (Loading, RuntimeLost): _wait_again,  # Queued
    (Loading, AdapterLost): _wait_again,  # Queued
    (Loaded, Leave): _drain,  # Draining
    (Loaded, RuntimeLost): _vanish,  # Gone
    (Draining, Drained): _unload,  # Unloading
    (Draining, RuntimeLost): _vanish,  # Gone
    (Unloading, UnloadDone): _let_go,  # Gone or Failed
    (Unloading, UnloadFailed): _unload_again,  # Unloading
    (Unloading, Leave): _drop_failure,  # Unloading
    (Unloading, RuntimeLost): _vanish_in_unload,  # Gone, Failed or Queued
    (Unloading, AdapterLost): _wait_again_if_cut_off,  # Unloading or Queued
    (Failed, Leave): _forget,  # Gone
    (Failed, Forgiven): _forget,  # Gone
}
