"""Predictors as the JSON objects that people see: what `kubectl get -o json` prints of them."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from mesh.core.records import Predictor
from mesh.core.status import FailureInfo, PredictorStatus

API_VERSION = "wmlserving.ai.ibm.com/v1"
PREDICTOR = "Predictor"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where clients reach every Predictor; empty where that door is not open."""

    grpc: str
    http: str = ""


def predictor_object(
    predictor: Predictor, status: PredictorStatus, endpoints: Endpoints
) -> dict[str, object]:
    """A Predictor with its status."""
    return {
        "apiVersion": API_VERSION,
        "kind": PREDICTOR,
        "metadata": {
            "name": predictor.name,
            "creationTimestamp": timestamp(predictor.created_s),
            "generation": predictor.generation,
        },
        "spec": json.loads(predictor.spec),
        "status": _status(status, endpoints),
    }


def timestamp(time_s: float) -> str:
    """Seconds since the epoch as Kubernetes writes them: RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _status(status: PredictorStatus, endpoints: Endpoints) -> dict[str, object]:
    fields: dict[str, object] = {
        "available": status.is_available,
        "activeModelState": status.active_state,
        "targetModelState": status.target_state or "",
        "transitionStatus": status.transition,
        "failedCopies": status.failed_copies,
        "totalCopies": status.total_copies,
        "grpcEndpoint": endpoints.grpc,
        "httpEndpoint": endpoints.http,
    }
    if status.failure is not None:
        fields["lastFailureInfo"] = _failure(status.failure)
    return fields


def _failure(failure: FailureInfo) -> dict[str, str]:
    fields = {
        "reason": failure.reason,
        "message": failure.message,
        "modelId": failure.model,
        "location": failure.location,
        "time": timestamp(failure.time_s) if failure.time_s else "",
    }
    return {key: value for key, value in fields.items() if value}
