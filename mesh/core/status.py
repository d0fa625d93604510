"""What a Predictor shows, from the records alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mesh.core.ids import ModelId
from mesh.core.placement import remembered_failures
from mesh.core.records import CopyRecord, CopyState, Predictor
from mesh.core.runtimes import missing_runtime, pending, unhealthy_since_s
from mesh.core.view import View

RUNTIME_UNHEALTHY = "RuntimeUnhealthy"
RUNTIME_UNHEALTHY_MESSAGE = "Waiting for supporting runtime Pod to become available"


class ModelState(StrEnum):
    """PENDING: its runtime has no pod yet. STANDBY: known, loaded nowhere, loads on use."""

    PENDING = "Pending"
    STANDBY = "Standby"
    LOADING = "Loading"
    LOADED = "Loaded"
    FAILED = "Failed"


class TransitionStatus(StrEnum):
    UP_TO_DATE = "UpToDate"
    IN_PROGRESS = "InProgress"
    BLOCKED = "BlockedByFailedLoad"
    INVALID_SPEC = "InvalidSpec"


@dataclass(frozen=True, slots=True)
class FailureInfo:
    """The last failure: `time_s` in seconds since the epoch, 0 where it has no moment."""

    reason: str
    message: str
    model: ModelId
    location: str = ""
    time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PredictorStatus:
    """The status fields of a Predictor; `target_state` is None at rest."""

    is_available: bool
    active_state: ModelState
    target_state: ModelState | None
    transition: TransitionStatus
    failed_copies: int
    total_copies: int
    failure: FailureInfo | None


def predictor_status(predictor: Predictor, view: View, *, now: float) -> PredictorStatus:
    """The status as this view has it. `now`: seconds since the epoch."""
    is_moving = predictor.active != predictor.target
    active = model_state(predictor.active, view, now=now)
    target = model_state(predictor.target, view, now=now) if is_moving else None
    if target is ModelState.STANDBY:
        target = ModelState.LOADING  # a target is always being loaded, if only its turn is not yet
    copies = list(view.copies(predictor.active).values())
    if is_moving:
        copies += view.copies(predictor.target).values()
    return PredictorStatus(
        is_available=active is not ModelState.FAILED
        and (active is not ModelState.PENDING or _unhealthy(predictor.active, view, now) is None),
        active_state=active,
        target_state=target,
        transition=_transition(target),
        failed_copies=sum(copy.state is CopyState.FAILED for copy in copies),
        total_copies=len(copies),
        failure=_failure(predictor, view, now),
    )


def model_state(model: ModelId, view: View, *, now: float) -> ModelState:
    """The state of a backing model over all its copies."""
    copies = view.copies(model).values()
    states = {copy.state for copy in copies}
    if CopyState.LOADED in states:
        return ModelState.LOADED
    if CopyState.LOADING in states:
        return ModelState.LOADING
    if remembered_failures(copies, now=now):
        return ModelState.FAILED
    record = view.models.get(model)
    if record is None:
        return ModelState.STANDBY
    if missing_runtime(record, view.nodes.values(), view.runtimes) is not None:
        return ModelState.FAILED
    is_pending = bool(pending(record.common_source, view.nodes, view.runtimes))
    return ModelState.PENDING if is_pending else ModelState.STANDBY


def _transition(target: ModelState | None) -> TransitionStatus:
    match target:
        case None:
            return TransitionStatus.UP_TO_DATE
        case ModelState.FAILED:
            return TransitionStatus.BLOCKED
        case _:
            return TransitionStatus.IN_PROGRESS


def _failure(predictor: Predictor, view: View, now: float) -> FailureInfo | None:
    for model in dict.fromkeys((predictor.target, predictor.active)):
        copies = view.copies(model).values()
        if _has_loaded(copies):
            continue
        if failures := remembered_failures(copies, now=now):
            last = failures[0]
            return FailureInfo("ModelLoadFailed", last.reason, model, last.node, last.since_s)
        record = view.models.get(model)
        if record is None:
            continue
        if (missing := missing_runtime(record, view.nodes.values(), view.runtimes)) is not None:
            return FailureInfo(missing.reason, missing.message, model)
        if (unhealthy := _unhealthy(model, view, now)) is not None:
            return unhealthy
    return None


def _unhealthy(model: ModelId, view: View, now: float) -> FailureInfo | None:
    """That its runtime has been starting for too long."""
    record = view.models.get(model)
    if record is None or model_state(model, view, now=now) is not ModelState.PENDING:
        return None
    since_s = unhealthy_since_s(pending(record.common_source, view.nodes, view.runtimes), now=now)
    if since_s is None:
        return None
    return FailureInfo(RUNTIME_UNHEALTHY, RUNTIME_UNHEALTHY_MESSAGE, model, time_s=since_s)


def _has_loaded(copies: Iterable[CopyRecord]) -> bool:
    return any(copy.state is CopyState.LOADED for copy in copies)
