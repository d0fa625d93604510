"""How a runtime stands, for its status and for the mesh. Pure."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from mesh.wire.resources import timestamp
from mesh.wire.runtime_manifest import ServingRuntimeManifest

Json = dict[str, Any]


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
    """A condition of type Valid."""

    is_true: bool
    reason: str
    message: str

    @classmethod
    def valid(cls, problems: tuple[str, ...]) -> "Condition":
        if problems:
            return cls(False, "InvalidSpec", "; ".join(problems))
        return cls(True, "Valid", "")

    def over(self, before: Json, state: Health, generation: int | None, now_s: float) -> Json:
        """The status with this condition; its time moves only where true turns false or back."""
        value = "True" if self.is_true else "False"
        old: Json = next(
            (c for c in before.get("conditions") or () if c.get("type") == "Valid"), {}
        )
        is_same = old.get("status") == value
        written = {
            "type": "Valid",
            "status": value,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": old["lastTransitionTime"] if is_same else timestamp(now_s),
        }
        number = {} if generation is None else {"observedGeneration": generation}
        return {"state": state.value, "conditions": [written], **number}
