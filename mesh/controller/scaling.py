"""When a runtime has pods: a pure automaton, stepped whenever something may have changed.

    up ---- no Predictor uses it, for the grace ----> down (UNUSED)
    up ---- no request or load, for the idle time --> down (IDLE)
    down (UNUSED) --- a Predictor uses it ----------> up
    down (IDLE) ----- somebody waits for it --------> up

A Predictor that is deleted and created again within the grace changes nothing. Which Predictors use
a runtime, and when somebody last waited for it or used it, is what the mesh says; while the mesh
does not answer, nothing is stepped and everything stays. Times are seconds since the epoch.
"""

from dataclasses import dataclass, replace
from enum import Enum

from mesh.controller.config import ScaleToZero

# Nodes tell of their last use in steps of ten seconds, and of a wish in steps of five.
TOLD_LATE_S = 15.0


class Level(Enum):
    UP = "up"
    UNUSED = "unused"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one runtime, as the mesh has it; a time is None where there was none."""

    predictors: int
    wanted_s: float | None = None
    last_use_s: float | None = None


@dataclass(frozen=True, slots=True)
class ScalingState:
    """`since_s`: of the level; `unused_since_s`: while up, when its last Predictor went.

    `wanted_s`: while idle, the last wish that was known before; any other one is new. The mesh's
    clocks are not ours.
    """

    level: Level
    since_s: float
    unused_since_s: float | None = None
    wanted_s: float | None = None

    @property
    def is_up(self) -> bool:
        return self.level is Level.UP


def step(state: ScalingState, usage: Usage, policy: ScaleToZero, now_s: float) -> ScalingState:
    """The state from now on; the same object where nothing changes."""
    if not policy.enabled:
        return _up(state, now_s)
    if usage.predictors == 0:
        return _unused(state, policy, now_s)
    if state.level is Level.UP:
        idle_at_s = _idle_at_s(state, usage, policy)
        if idle_at_s is not None and now_s >= idle_at_s:
            return ScalingState(Level.IDLE, now_s, wanted_s=usage.wanted_s)
        return state if state.unused_since_s is None else replace(state, unused_since_s=None)
    if state.level is Level.IDLE and not _is_wanted(state, usage):
        return state
    return _up(state, now_s)


def due_s(state: ScalingState, usage: Usage, policy: ScaleToZero) -> float | None:
    """When time alone changes something; None where it never does."""
    if not policy.enabled or not state.is_up:
        return None
    if usage.predictors == 0:
        since_s = state.unused_since_s
        return None if since_s is None else since_s + policy.grace_period_seconds
    return _idle_at_s(state, usage, policy)


def _up(state: ScalingState, now_s: float) -> ScalingState:
    if state.level is Level.UP and state.unused_since_s is None:
        return state
    return ScalingState(Level.UP, state.since_s if state.is_up else now_s)


def _unused(state: ScalingState, policy: ScaleToZero, now_s: float) -> ScalingState:
    if state.level is Level.UNUSED:
        return state
    if state.level is Level.IDLE:
        # The next Predictor brings it back by being there.
        return ScalingState(Level.UNUSED, state.since_s)
    since_s = now_s if state.unused_since_s is None else state.unused_since_s
    if now_s >= since_s + policy.grace_period_seconds:
        return ScalingState(Level.UNUSED, now_s)
    return replace(state, unused_since_s=since_s)


def _idle_at_s(state: ScalingState, usage: Usage, policy: ScaleToZero) -> float | None:
    if not policy.idle_seconds:
        return None
    told = (it_s for it_s in (usage.wanted_s, usage.last_use_s) if it_s is not None)
    return max([state.since_s, *(it_s + TOLD_LATE_S for it_s in told)]) + policy.idle_seconds


def _is_wanted(state: ScalingState, usage: Usage) -> bool:
    return usage.wanted_s is not None and usage.wanted_s != state.wanted_s
