"""The status of each kind as CRDs describe it, and the columns that `kubectl get` prints."""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


def _count(description: str) -> Json:
    return {"type": "integer", "format": "int64", "description": description}


_FAILURE = {
    "type": "object",
    "description": "The last failure, while it matters.",
    "properties": {
        "reason": _text("What kind of failure, such as ModelLoadFailed."),
        "message": _text("What went wrong, in words."),
        "modelId": _text("The model that failed: the Predictor's name and a hash of its spec."),
        "modelRevisionName": _text("The version of the spec that failed."),
        "location": _text("The node that it failed on."),
        "time": _text("When.", format="date-time"),
        "exitCode": {"type": "integer", "format": "int32", "description": "Of a process."},
    },
}
_PREDICTOR = {
    "type": "object",
    "description": "What the mesh says of it; written by the controller.",
    "default": {
        "available": False,
        "activeModelState": "Pending",
        "transitionStatus": "UpToDate",
    },
    "properties": {
        "available": {"type": "boolean", "description": "Whether it answers requests."},
        "activeModelState": _text(
            "Of the model that answers: Pending, Standby, Loading, Loaded, Failed."
        ),
        "targetModelState": _text("Of the model that is to replace it, while there is one."),
        "transitionStatus": _text("UpToDate, InProgress, BlockedByFailedLoad or InvalidSpec."),
        "failedCopies": _count("Copies of the model that failed to load."),
        "totalCopies": _count("Copies of the model that are loaded."),
        "grpcEndpoint": _text("Where gRPC clients in the cluster call."),
        "httpEndpoint": _text("Where REST clients in the cluster call."),
        "lastFailureInfo": _FAILURE,
    },
}
_CONDITION = {
    "type": "object",
    "required": ["type", "status"],
    "properties": {
        "type": _text("Valid or Available."),
        "status": _text("True, False or Unknown."),
        "reason": _text("Why, in one word."),
        "message": _text("Why, in words."),
        "lastTransitionTime": _text("Since when.", format="date-time"),
        "observedGeneration": _count("The version of the spec that it is about."),
    },
}
_RUNTIME = {
    "type": "object",
    "description": "How its pods are; written by the controller.",
    "properties": {
        "state": _text("Zero, Starting, Running or Disabled."),
        "observedGeneration": _count("The version of the spec that it is about."),
        "conditions": {
            "type": "array",
            "description": "Whether it is valid, and available.",
            "items": _CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    },
}
STATUSES: Mapping[str, Json] = {"Predictor": _PREDICTOR, "ServingRuntime": _RUNTIME}


def _column(name: str, path: str, kind: str = "string") -> Json:
    return {"name": name, "type": kind, "jsonPath": path}


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_OF_RUNTIMES = [
    _column("Disabled", ".spec.disabled", "boolean"),
    _column("ModelType", ".spec.supportedModelTypes[*].name"),
    _column("Containers", ".spec.containers[*].name"),
]
COLUMNS: Mapping[str, list[Json]] = {
    "Predictor": [
        _column("Type", ".spec.modelType.name"),
        _column("Available", ".status.available", "boolean"),
        _column("ActiveModel", ".status.activeModelState"),
        _column("TargetModel", ".status.targetModelState"),
        _column("Transition", ".status.transitionStatus"),
        _AGE,
    ],
    "ServingRuntime": [*_OF_RUNTIMES, _column("State", ".status.state"), _AGE],
    "ClusterServingRuntime": [*_OF_RUNTIMES, _AGE],
}
