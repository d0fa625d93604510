"""What a Deployment of a runtime says, as the API server has it. Pure."""

from mesh.controller.names import RUNTIME_LABEL
from mesh.kube.port import FIELD_MANAGER, Json


def runtime_of(deployment: Json) -> str | None:
    """The runtime that a Deployment is of, if it is one of ours."""
    label = (deployment["metadata"].get("labels") or {}).get(RUNTIME_LABEL)
    return None if label is None else str(label)


def is_scaled_by_us(deployment: Json) -> bool:
    """Whether its replicas are a field of our own manager, as they are without an autoscaler."""
    for entry in deployment["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
            if "f:replicas" in fields:
                return True
    return False


def replicas(deployment: Json | None) -> int:
    """How many pods are asked for; none where there is no Deployment."""
    if deployment is None:
        return 0
    return int((deployment.get("spec") or {}).get("replicas", 1))


def generation(deployment: Json | None) -> int:
    """-1 where there is none."""
    return -1 if deployment is None else int(deployment["metadata"].get("generation", 0))
