"""What people see, as JSON objects: Predictors as `kubectl get -o json` prints them, and in the
same form models, nodes and copies.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from mesh.core.ids import PredictorName
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    Predictor,
    RuntimeRecord,
)
from mesh.core.status import FailureInfo, PredictorStatus

API_VERSION = "wmlserving.ai.ibm.com/v1"
PREDICTOR = "Predictor"
# The annotation that says whose a Predictor is; of what belongs to nobody it is not there.
OWNER = "wmlserving.ai.ibm.com/owner"
MODEL, NODE, COPY, RUNTIME = "Model", "Node", "Copy", "ServingRuntime"
UNITS = ("B", "kB", "MB", "GB", "TB")
UNIT_STEP = 1000
TENTHS_BELOW = 10


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
            **({"annotations": {OWNER: predictor.owner}} if predictor.owner else {}),
        },
        "spec": json.loads(predictor.spec),
        "status": _status(status, endpoints),
    }


def timestamp(time_s: float) -> str:
    """Seconds since the epoch as Kubernetes writes them: RFC 3339, whole seconds, UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def copy_object(copy: CopyRecord) -> dict[str, object]:
    """A copy: what it does not have is left out."""
    fields: dict[str, object] = {
        "model": copy.model,
        "node": copy.node,
        "state": copy.state,
        "sizeBytes": copy.size_bytes,
        "since": timestamp(copy.since_s),
        "reason": copy.reason,
    }
    return {key: value for key, value in fields.items() if value}


def copy_resource(copy: CopyRecord) -> dict[str, object]:
    """A copy as a resource; its name is `<model>/<node>`."""
    return _resource(COPY, f"{copy.model}/{copy.node}", status=copy_object(copy))


def model_resource(
    model: BackingModel,
    state: str,
    names: Iterable[PredictorName],
    copies: Iterable[CopyRecord],
) -> dict[str, object]:
    """A backing model: its spec, who refers to it, and what its copies come to."""
    states = [copy.state for copy in copies]
    status = {
        "state": state,
        "predictors": sorted(names),
        "copies": states.count(CopyState.LOADED),
        "failedCopies": states.count(CopyState.FAILED),
        "autoDelete": model.auto_delete,
    }
    spec = json.loads(model.spec or "{}")
    return _resource(MODEL, model.id, status=status) | {"spec": spec}


def node_resource(node: NodeRecord, copies: int) -> dict[str, object]:
    """A node and what it offers; `copies`: how many models it holds, in whatever state."""
    status = {
        "state": node.state,
        "runtime": node.runtime or "",
        "modelTypes": sorted(map(str, node.model_types)),
        "copies": copies,
        "loading": node.loading,
        "usedBytes": node.used_bytes,
        "capacityBytes": node.capacity_bytes,
        "requestsPerSecond": round(node.rps, 1),
        "zone": node.zone,
        "labels": sorted(node.labels),
        "address": node.address,
    }
    return _resource(NODE, node.id, created_s=node.joined_s, status=status)


def runtime_resource(
    runtime: RuntimeRecord, *, wanted_s: float, last_use_s: float, predictors: int
) -> dict[str, object]:
    """A runtime: `wanted_s` and `last_use_s` are 0 where there was no such moment."""
    status = {
        "state": runtime.state,
        "since": _moment(runtime.since_s),
        "wanted": _moment(wanted_s),
        "lastUse": _moment(last_use_s),
        "predictors": predictors,
    }
    types = sorted(runtime.model_types, key=str)
    listed = [{"name": it.name, **({"version": it.version} if it.version else {})} for it in types]
    spec = {"supportedModelTypes": listed}
    return _resource(RUNTIME, runtime.name, status=status) | {"spec": spec}


def _moment(time_s: float) -> str:
    return timestamp(time_s) if time_s else ""


def _resource(
    kind: str, name: str, *, status: Mapping[str, object], created_s: float = 0.0
) -> dict[str, object]:
    metadata = {"name": name}
    if created_s:
        metadata["creationTimestamp"] = timestamp(created_s)
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "status": dict(status)}


def size_text(size_bytes: int) -> str:
    """An amount of bytes for people: `3.1 MB`, `12 MB`."""
    unit = _unit(size_bytes)
    return f"{_in_unit(size_bytes, unit)} {UNITS[unit]}"


def progress_text(stage: str, done_bytes: int, total_bytes: int) -> str:
    """How far a load is: `pulling 3.1/12 MB`, or less of it where less is known."""
    if not done_bytes:
        return stage
    if not total_bytes:
        return f"{stage} {size_text(done_bytes)}"
    unit = _unit(total_bytes)
    return f"{stage} {_in_unit(done_bytes, unit)}/{_in_unit(total_bytes, unit)} {UNITS[unit]}"


def _unit(size_bytes: int) -> int:
    """The index of the largest unit of which there is one."""
    steps = (len(str(size_bytes)) - 1) // 3
    return min(steps, len(UNITS) - 1)


def _in_unit(size_bytes: int, unit: int) -> str:
    amount = size_bytes / UNIT_STEP**unit
    return f"{amount:.1f}" if unit and amount < TENTHS_BELOW else f"{amount:.0f}"


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
