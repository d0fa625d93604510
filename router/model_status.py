"""What the mesh management API says of a model and of a vmodel, from the view alone."""

from mesh.core.ids import ModelId, PredictorName
from mesh.core.placement import remembered_failures
from mesh.core.records import CopyState, Predictor
from mesh.core.runtimes import missing_runtime
from mesh.core.status import ModelState, model_state
from mesh.core.view import View
from mesh.wire.pb import model_mesh_pb2 as pb

Status = pb.ModelStatusInfo
VStatus = pb.VModelStatusInfo

STATES = {
    ModelState.PENDING: Status.NOT_LOADED,
    ModelState.STANDBY: Status.NOT_LOADED,
    ModelState.LOADING: Status.LOADING,
    ModelState.LOADED: Status.LOADED,
    ModelState.FAILED: Status.LOADING_FAILED,
}
COPY_STATES = {
    CopyState.LOADING: Status.LOADING,
    CopyState.LOADED: Status.LOADED,
    CopyState.UNLOADING: Status.UNKNOWN,
    CopyState.FAILED: Status.LOADING_FAILED,
}


def model_status(view: View, model: ModelId, *, now: float) -> pb.ModelStatusInfo:
    """NOT_FOUND where it is not registered. `now`: seconds since the epoch."""
    record = view.models.get(model)
    if record is None:
        return Status(status=Status.NOT_FOUND)
    copies = sorted(view.copies(model).values(), key=lambda copy: (-copy.since_s, copy.node))
    errors = [copy.reason for copy in remembered_failures(copies, now=now)]
    if missing := missing_runtime(record, view.nodes.values(), view.runtimes):
        errors.append(missing.message)
    return Status(
        status=STATES[model_state(model, view, now=now)],
        errors=errors,
        modelCopyInfos=[
            Status.ModelCopyInfo(
                location=copy.node,
                copyStatus=COPY_STATES[copy.state],
                time=round(copy.since_s * 1_000),
            )
            for copy in copies
        ],
    )


def vmodel_status(
    view: View, name: PredictorName, *, now: float, owner: str = ""
) -> pb.VModelStatusInfo:
    """NOT_FOUND where there is none, or none of this owner (empty: whoever owns it)."""
    predictor = view.predictors.get(name)
    if predictor is None or owner not in ("", predictor.owner):
        missing = Status(status=Status.NOT_FOUND)
        return VStatus(status=VStatus.NOT_FOUND, activeModelStatus=missing)
    is_moving = predictor.active != predictor.target
    return VStatus(
        status=_state(view, predictor, now=now),
        activeModelId=predictor.active,
        targetModelId=predictor.target,
        activeModelStatus=model_status(view, predictor.active, now=now),
        targetModelStatus=model_status(view, predictor.target, now=now) if is_moving else None,
        owner=predictor.owner,
    )


def is_settled(view: View, name: PredictorName, target: ModelId, *, now: float) -> bool:
    """Whether the way to this target has ended, one way or other."""
    predictor = view.predictors.get(name)
    if predictor is None or predictor.target != target:
        return True
    return _state(view, predictor, now=now) is not VStatus.TRANSITIONING


def _state(view: View, predictor: Predictor, *, now: float) -> "pb.VModelStatusInfo.VModelStatus":
    if predictor.active == predictor.target:
        return VStatus.DEFINED
    if model_state(predictor.target, view, now=now) is ModelState.FAILED:
        return VStatus.TRANSITION_FAILED
    return VStatus.TRANSITIONING
