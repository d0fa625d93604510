"""How a runtime stands, for its status and for the mesh. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from mesh.wire.resources import timestamp
from mesh.wire.runtime_manifest import ServingRuntimeManifest

Json = dict[str, Any]

# As in Kubernetes' own conditions.
MAX_MESSAGE = 32_768
# Conditions of a Deployment that does not come up.
TROUBLE = {("ReplicaFailure", "True"), ("Progressing", "False")}


class Health(Enum):
    """The first three are also what the mesh is told."""

    ZERO = "Zero"
    STARTING = "Starting"
    RUNNING = "Running"
    DISABLED = "Disabled"


def health(deployment: Json | None, *, is_up: bool) -> Health:
    """By its Deployment: running as soon as one pod is ready."""
    if not is_up:
        return Health.ZERO
    ready = ((deployment or {}).get("status") or {}).get("readyReplicas") or 0
    return Health.RUNNING if ready else Health.STARTING


def status_object(manifest: ServingRuntimeManifest, state: Health, since_s: float) -> Json:
    """A runtime as SetRuntimes takes it."""
    spec = manifest.spec.model_dump(
        mode="json",
        by_alias=True,
        exclude_unset=True,
        exclude_none=True,
        include={"supported_model_types", "supported_model_formats", "disabled"},
    )
    return {
        "metadata": {"name": manifest.metadata.name},
        "spec": spec,
        "status": {"state": state.value, "since": timestamp(since_s)},
    }


@dataclass(frozen=True, slots=True)
class Condition:
    """One of a status' conditions."""

    type: str
    is_true: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Problems:
    """Why a runtime is not brought about: an InvalidSpec, or Kubernetes Refused its objects."""

    reason: str
    text: str


def validity(problems: Problems | None) -> Condition:
    if problems is None:
        return Condition("Valid", is_true=True, reason="Valid")
    message = problems.text[:MAX_MESSAGE]
    return Condition("Valid", is_true=False, reason=problems.reason, message=message)


def availability(deployment: Json | None, found: Health) -> Condition:
    """Whether a pod is ready; where none can even be made, in the words of Kubernetes."""
    if found is not Health.STARTING:
        return Condition("Available", is_true=found is Health.RUNNING, reason=found.value)
    told = ((deployment or {}).get("status") or {}).get("conditions") or ()
    for condition in told:
        if (condition.get("type"), condition.get("status")) in TROUBLE:
            reason, message = condition.get("reason", "Failed"), condition.get("message", "")
            return Condition("Available", is_true=False, reason=reason, message=message)
    return Condition("Available", is_true=False, reason=found.value)


def status_of(
    before: Json,
    found: Health,
    generation: int | None,
    conditions: tuple[Condition, ...],
    now_s: float,
) -> Json:
    """The status of a ServingRuntime; a condition's time moves where true turns false or back."""
    old = {item.get("type"): item for item in before.get("conditions") or ()}
    written = [_written(item, old.get(item.type) or {}, now_s) for item in conditions]
    number = {} if generation is None else {"observedGeneration": generation}
    return {"state": found.value, "conditions": written, **number}


def _written(condition: Condition, old: Json, now_s: float) -> Json:
    value = "True" if condition.is_true else "False"
    is_same = old.get("status") == value
    return {
        "type": condition.type,
        "status": value,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": old["lastTransitionTime"] if is_same else timestamp(now_s),
    }
