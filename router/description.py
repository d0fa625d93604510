"""All that a node knows of one Predictor, for people: what `wml-serving describe` prints."""

import json

from mesh.agent.copy import Copy
from mesh.agent.engine import Node
from mesh.agent.history import Happening
from mesh.core import copies as life
from mesh.core.errors import ModelNotFound
from mesh.core.ids import ModelId, PredictorName
from mesh.core.records import Predictor
from mesh.core.status import model_state, predictor_status
from mesh.wire import resources


def describe(
    node: Node, name: PredictorName, endpoints: resources.Endpoints, *, now: float
) -> dict[str, object]:
    """The object with its models, copies and history; raises ModelNotFound.

    `now`: seconds since the epoch.
    """
    view = node.view
    predictor = view.predictors.get(name)
    if predictor is None:
        raise ModelNotFound(name)
    status = predictor_status(predictor, view, now=now)
    shown = resources.predictor_object(predictor, status, endpoints)
    at = progress(node, name)
    if at and isinstance(shown["status"], dict):
        shown["status"]["progress"] = at
    models = _models(predictor)
    return shown | {
        "models": [_model(node, model, role, now=now) for model, role in models.items()],
        "copies": [
            resources.copy_object(copy)
            for model in models
            for _, copy in sorted(view.copies(model).items())
        ],
        "history": [_happening(happening) for happening in node.history.of(name)],
    }


def progress(node: Node, name: PredictorName) -> str:
    """What a load for this Predictor is at on this node; empty where nothing loads."""
    predictor = node.view.predictors.get(name)
    if predictor is None:
        return ""
    copies = (node.copy(model) for model in (predictor.target, predictor.active))
    return next((at for copy in copies if copy and (at := _stage(node, copy))), "")


def _stage(node: Node, copy: Copy) -> str:
    match copy.state:
        case life.Queued():
            if node.holdings.room.info is None:
                return "waiting for the runtime"
            return "waiting for room" if copy.entry is None else "waiting for its turn"
        case life.Loading():
            at = copy.progress
            if at is None:
                return "loading"
            return resources.progress_text(at.stage, at.done_bytes, at.total_bytes)
    return ""


def _models(predictor: Predictor) -> dict[ModelId, str]:
    """The backing models and what they are to it; one at rest."""
    models = {predictor.active: "Active"}
    models.setdefault(predictor.target, "Target")
    return models


def _model(node: Node, model: ModelId, role: str, *, now: float) -> dict[str, object]:
    fields: dict[str, object] = {
        "id": model,
        "role": role,
        "state": model_state(model, node.view, now=now),
    }
    record = node.view.models.get(model)
    return fields if record is None else fields | {"spec": json.loads(record.spec)}


def _happening(happening: Happening) -> dict[str, object]:
    fields: dict[str, object] = {
        "time": resources.timestamp(happening.time_s),
        "firstTime": resources.timestamp(happening.first_s),
        "count": happening.count,
        "type": happening.what,
        "model": happening.model,
        "node": happening.node,
        "message": happening.message,
    }
    return {key: value for key, value in fields.items() if value}
