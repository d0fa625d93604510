"""Scale to zero and back: none at first, up with the first Predictor, down after the grace."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.controller.config import ScaleToZero
from mesh.controller.scaling import TOLD_LATE_S, Level, ScalingState, Usage, due_s, step

GRACE = ScaleToZero.model_validate({"gracePeriodSeconds": 60})
IDLE = ScaleToZero.model_validate({"gracePeriodSeconds": 60, "idleSeconds": 300})
OFF = ScaleToZero.model_validate({"enabled": False})
DOWN = ScalingState(Level.UNUSED, 0.0)
UP = ScalingState(Level.UP, 0.0)
NONE, ONE = Usage(0), Usage(1)


def test_runtime_without_predictors_stays_down():
    assert step(DOWN, NONE, GRACE, 10.0) is DOWN
    assert due_s(DOWN, NONE, GRACE) is None


def test_first_predictor_brings_it_up():
    assert step(DOWN, ONE, GRACE, 10.0) == ScalingState(Level.UP, 10.0)


def test_last_predictor_gone_takes_it_down_after_the_grace_and_not_before():
    state = step(UP, NONE, GRACE, 100.0)
    assert state.is_up
    assert due_s(state, NONE, GRACE) == 160.0
    assert step(state, NONE, GRACE, 159.9).is_up
    assert step(state, NONE, GRACE, 160.0) == ScalingState(Level.UNUSED, 160.0)


def test_predictor_created_again_within_the_grace_changes_nothing_and_starts_it_anew():
    state = step(step(UP, NONE, GRACE, 100.0), ONE, GRACE, 150.0)
    assert state == UP
    state = step(state, NONE, GRACE, 155.0)
    assert step(state, NONE, GRACE, 170.0).is_up
    assert not step(state, NONE, GRACE, 215.0).is_up


def test_switched_off_it_is_always_up():
    assert step(DOWN, NONE, OFF, 5.0) == ScalingState(Level.UP, 5.0)
    assert step(UP, NONE, OFF, 500.0) is UP
    assert due_s(UP, NONE, OFF) is None


def test_unused_for_the_idle_time_goes_down_and_the_next_wish_brings_it_back():
    used = Usage(1, wanted_s=50.0, last_use_s=100.0)
    assert due_s(UP, used, IDLE) == 400.0 + TOLD_LATE_S
    assert step(UP, used, IDLE, 399.0 + TOLD_LATE_S) is UP
    idle = step(UP, used, IDLE, 400.0 + TOLD_LATE_S)
    assert idle.level is Level.IDLE
    assert step(idle, used, IDLE, 9_000.0) is idle
    back = step(idle, Usage(1, wanted_s=50.1, last_use_s=100.0), IDLE, 500.0)
    assert back == ScalingState(Level.UP, 500.0)


def test_idle_time_that_is_shorter_than_the_steps_in_which_uses_are_told_spares_one_in_use():
    policy = ScaleToZero.model_validate({"idleSeconds": 5})
    state = UP
    for now_s in range(100, 200):
        told_s = now_s - now_s % 11  # asked every second; told when the last is over 10 s old
        state = step(state, Usage(1, last_use_s=float(told_s)), policy, float(now_s))
        assert state.is_up


def test_idle_time_that_is_shorter_than_the_steps_of_wishes_lets_it_come_up_for_who_waits():
    policy = ScaleToZero.model_validate({"idleSeconds": 5})
    state = ScalingState(Level.IDLE, 0.0)
    for now_s in range(100, 200):
        wanted_s = now_s - now_s % 6  # somebody waits; told when the last is over 5 s old
        state = step(state, Usage(1, wanted_s=float(wanted_s)), policy, float(now_s))
        assert state.is_up


def test_first_wish_ever_brings_an_idle_one_back():
    idle = step(UP, ONE, IDLE, 300.0)
    assert idle.level is Level.IDLE
    assert step(idle, Usage(1, wanted_s=299.0), IDLE, 301.0).is_up


def test_idle_one_whose_predictors_are_gone_comes_back_with_the_next():
    idle = step(UP, ONE, IDLE, 300.0)
    unused = step(idle, NONE, IDLE, 310.0)
    assert unused.level is Level.UNUSED
    assert step(unused, ONE, IDLE, 320.0).is_up


def test_without_idle_time_it_stays_however_long_nobody_asks():
    assert step(UP, ONE, GRACE, 1e9) is UP
    assert due_s(UP, ONE, GRACE) is None


usages = st.builds(
    Usage,
    st.integers(0, 2),
    st.none() | st.floats(0, 1000),
    st.none() | st.floats(0, 1000),
)


@given(st.lists(st.tuples(usages, st.floats(0, 100)), max_size=20), st.sampled_from([GRACE, IDLE]))
def test_stepping_twice_is_as_once_and_what_is_due_is_in_the_future(
    story: list[tuple[Usage, float]], policy: ScaleToZero
):
    state, now_s = DOWN, 0.0
    for usage, pause_s in story:
        now_s += pause_s
        state = step(state, usage, policy, now_s)
        assert step(state, usage, policy, now_s) == state
        due = due_s(state, usage, policy)
        assert due is None or due > now_s
        if usage.predictors == 0 and due is not None:
            assert not step(state, usage, policy, due).is_up
