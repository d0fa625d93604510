"""What a Predictor shows, for each thing that its records can say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.placement import FAILURE_MEMORY_S
from mesh.core.records import CopyState, NodeState, RuntimeState
from mesh.core.runtimes import UNHEALTHY_AFTER_S
from mesh.core.status import (
    FailureInfo,
    ModelState,
    TransitionStatus,
    model_state,
    predictor_status,
)
from mesh.core.view import View
from tests.support.builders import copy, model_of, node, predictor, runtime_record

NOW = 10_000.0
A, B = model_of("p", "a"), model_of("p", "b")
LOADED, LOADING, UNLOADING, FAILED = (
    CopyState.LOADED,
    CopyState.LOADING,
    CopyState.UNLOADING,
    CopyState.FAILED,
)


def view_of(*copies, models=(A, B), nodes=None) -> View:
    view = View()
    for record in (*models, *copies, *([node("n1"), node("n2")] if nodes is None else nodes)):
        view.put(record)
    return view


def of_a(state, node_id="n1", **fields):
    return copy(A.id, state, node_id, **({"since_s": NOW} | fields))


def of_b(state, node_id="n2", **fields):
    return copy(B.id, state, node_id, **({"since_s": NOW} | fields))


def resting(view):
    return predictor_status(predictor("p", active=A.id), view, now=NOW)


def moving(view):
    return predictor_status(predictor("p", active=A.id, target=B.id), view, now=NOW)


@pytest.mark.parametrize(
    ("copies", "state"),
    [
        ([], ModelState.STANDBY),
        ([UNLOADING], ModelState.STANDBY),
        ([LOADING], ModelState.LOADING),
        ([FAILED], ModelState.FAILED),
        ([LOADING, FAILED], ModelState.LOADING),
        ([LOADED, FAILED], ModelState.LOADED),
        ([LOADED, LOADING], ModelState.LOADED),
        ([UNLOADING, FAILED], ModelState.FAILED),
    ],
)
def test_model_state_is_the_best_of_its_copies(copies, state):
    view = view_of(*(of_a(word, f"n{n}") for n, word in enumerate(copies)))
    assert model_state(A.id, view, now=NOW) is state


def test_failure_that_is_forgotten_leaves_a_model_on_standby():
    view = view_of(of_a(FAILED, since_s=NOW - FAILURE_MEMORY_S))
    assert model_state(A.id, view, now=NOW) is ModelState.STANDBY
    assert resting(view).failure is None


def test_model_that_no_runtime_serves_has_failed():
    onnx = model_of("p", type_name="onnx")
    view = view_of(models=[onnx])
    status = predictor_status(predictor("p", active=onnx.id), view, now=NOW)
    assert status.active_state is ModelState.FAILED
    assert not status.is_available
    assert status.failure == FailureInfo(
        "NoSupportingRuntime",
        "No ServingRuntime supports specified model type and/or protocol",
        onnx.id,
    )


def test_model_that_the_view_does_not_know_yet_is_on_standby():
    status = resting(view_of(models=[]))
    assert status.active_state is ModelState.STANDBY
    assert status.failure is None


def test_predictor_at_rest_shows_no_target():
    status = resting(view_of(of_a(LOADED)))
    assert status.is_available
    assert status.active_state is ModelState.LOADED
    assert status.target_state is None
    assert status.transition is TransitionStatus.UP_TO_DATE
    assert (status.failed_copies, status.total_copies) == (0, 1)
    assert status.failure is None


@pytest.mark.parametrize("copies", [[], [of_b(LOADING)]])
def test_predictor_on_its_way_shows_a_target_that_is_loading(copies):
    status = moving(view_of(of_a(LOADED), *copies))
    assert status.target_state is ModelState.LOADING
    assert status.transition is TransitionStatus.IN_PROGRESS


def test_target_that_is_loaded_is_still_on_its_way():
    status = moving(view_of(of_a(LOADED), of_b(LOADED)))
    assert status.target_state is ModelState.LOADED
    assert status.transition is TransitionStatus.IN_PROGRESS


def test_target_that_failed_blocks_and_says_why():
    status = moving(view_of(of_a(LOADED), of_b(FAILED, reason="bad file")))
    assert status.is_available
    assert status.target_state is ModelState.FAILED
    assert status.transition is TransitionStatus.BLOCKED
    assert (status.failed_copies, status.total_copies) == (1, 2)
    assert status.failure == FailureInfo("ModelLoadFailed", "bad file", B.id, "n2", NOW)


def test_failure_beside_a_loaded_copy_is_not_worth_telling():
    status = resting(view_of(of_a(LOADED), of_a(FAILED, "n2", reason="bad")))
    assert status.failure is None
    assert status.failed_copies == 1


def test_failure_of_the_active_model_is_told_when_the_target_has_none():
    status = moving(view_of(of_a(FAILED, reason="bad"), of_b(LOADING)))
    assert not status.is_available
    assert status.failure == FailureInfo("ModelLoadFailed", "bad", A.id, "n1", NOW)


def test_failure_of_the_target_is_told_before_that_of_the_active_model():
    status = moving(view_of(of_a(FAILED, reason="old"), of_b(FAILED, reason="new")))
    assert status.failure == FailureInfo("ModelLoadFailed", "new", B.id, "n2", NOW)


def test_last_failure_is_the_latest():
    copies = [of_a(FAILED, "n1", reason="old", since_s=NOW - 9), of_a(FAILED, "n2", reason="new")]
    failure = resting(view_of(*copies)).failure
    assert failure is not None
    assert (failure.message, failure.location) == ("new", "n2")


STATES = st.lists(st.sampled_from(CopyState), max_size=3)


@given(STATES, STATES, st.booleans(), st.sampled_from(NodeState))
def test_status_fields_agree_with_each_other(actives, targets, is_moving, node_state):
    copies = [of_a(word, f"n{n}", reason="bad") for n, word in enumerate(actives)]
    copies += [of_b(word, f"n{n}", reason="bad") for n, word in enumerate(targets)]
    status = (moving if is_moving else resting)(view_of(*copies, nodes=[node("n1", node_state)]))
    assert (status.target_state is None) == (not is_moving)
    assert (status.transition is TransitionStatus.UP_TO_DATE) == (not is_moving)
    assert (status.transition is TransitionStatus.BLOCKED) == (
        status.target_state is ModelState.FAILED
    )
    assert status.is_available == (status.active_state is not ModelState.FAILED)
    assert status.failed_copies <= status.total_copies
    assert status.total_copies == len(actives) + (len(targets) if is_moving else 0)
    if not status.is_available or status.transition is TransitionStatus.BLOCKED:
        assert status.failure is not None
        assert status.failure.message


def at_zero(*copies, state=RuntimeState.ZERO, since_s=NOW, nodes=()) -> View:
    view = view_of(*copies, nodes=nodes)
    view.put(runtime_record(state=state, since_s=since_s))
    return view


@pytest.mark.parametrize("state", [None, *(set(NodeState) - {NodeState.READY})])
def test_model_is_pending_until_a_node_of_its_runtime_is_ready(state):
    view = at_zero(nodes=[] if state is None else [node("n1", state)])
    status = resting(view)
    assert (status.active_state, status.is_available) == (ModelState.PENDING, True)
    assert (status.transition, status.failure) == (TransitionStatus.UP_TO_DATE, None)
    view.put(node("n2"))
    assert resting(view).active_state is ModelState.STANDBY


def test_target_may_be_pending_too():
    status = moving(at_zero())
    assert status.target_state is ModelState.PENDING
    assert status.transition is TransitionStatus.IN_PROGRESS


def test_model_that_is_pending_without_its_record_is_on_standby():
    view = View()
    view.put(runtime_record(state=RuntimeState.STARTING))
    assert resting(view).active_state is ModelState.STANDBY


@pytest.mark.parametrize(
    ("state", "age_s", "is_unhealthy"),
    [
        (RuntimeState.STARTING, UNHEALTHY_AFTER_S, True),
        (RuntimeState.STARTING, UNHEALTHY_AFTER_S - 0.1, False),
        (RuntimeState.ZERO, 1000.0, False),
        (RuntimeState.RUNNING, 1000.0, False),
    ],
)
def test_runtime_that_is_starting_for_too_long_is_unhealthy(state, age_s, is_unhealthy):
    status = resting(at_zero(state=state, since_s=NOW - age_s))
    assert (status.active_state, status.is_available) == (ModelState.PENDING, not is_unhealthy)
    message = "Waiting for supporting runtime Pod to become available"
    expected = FailureInfo("RuntimeUnhealthy", message, A.id, time_s=NOW - age_s)
    assert status.failure == (expected if is_unhealthy else None)


def test_another_runtime_that_has_just_begun_to_start_may_yet_be_the_one():
    view = at_zero(state=RuntimeState.STARTING, since_s=NOW - 100)
    view.put(runtime_record("other", RuntimeState.STARTING, NOW - 1))
    assert resting(view).is_available
    view.put(runtime_record("other", RuntimeState.ZERO, NOW - 1))
    assert not resting(view).is_available


def test_target_of_an_unhealthy_runtime_leaves_the_active_model_available():
    view = at_zero(of_a(LOADED), state=RuntimeState.STARTING, since_s=NOW - 100)
    status = moving(view)
    assert status.is_available
    assert status.target_state is ModelState.PENDING
    assert status.failure is not None
    assert (status.failure.reason, status.failure.model) == ("RuntimeUnhealthy", B.id)


def test_model_that_failed_or_is_loading_says_so_and_not_that_its_runtime_takes_long():
    for state, shown in ((LOADING, ModelState.LOADING), (FAILED, ModelState.FAILED)):
        view = at_zero(of_a(state), state=RuntimeState.STARTING, since_s=NOW - 100)
        status = resting(view)
        assert status.active_state is shown
        assert status.failure is None or status.failure.reason == "ModelLoadFailed"
