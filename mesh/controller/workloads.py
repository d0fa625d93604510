"""What a runtime is in Kubernetes: its Deployment, the file for its nodes, budget and autoscaler.

Pure: from a ServingRuntime, the configuration and whether it is up, to objects that are applied
server-side. `replicas` is left out where an autoscaler has it.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from mesh.controller.config import Config
from mesh.controller.names import (
    OUR_LABELS,
    RUNTIME_HASH,
    RUNTIME_LABEL,
    SERVICE,
    SERVICE_LABEL,
    workload_name,
)
from mesh.controller.pods import RUNTIME_FILE, Installation, Json, pod_spec
from mesh.controller.scale_annotations import Autoscaling, autoscaling
from mesh.wire.runtime_manifest import ServingRuntimeManifest

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
# Slower than a pod's start, so that a Deployment is not called failed while images are pulled.
PROGRESS_DEADLINE_S = 1800


@dataclass(frozen=True, slots=True)
class Owner:
    """The ServingRuntime, of a namespace or of the cluster, with which its objects go."""

    api_version: str
    kind: str
    name: str
    uid: str

    def reference(self) -> Json:
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


@dataclass(frozen=True, slots=True)
class Runtime:
    """A runtime to be run in a namespace."""

    manifest: ServingRuntimeManifest
    namespace: str
    owner: Owner

    @property
    def name(self) -> str:
        return workload_name(self.manifest.metadata.name)


def workloads(runtime: Runtime, config: Config, place: Installation, *, is_up: bool) -> list[Json]:
    """All objects of a runtime, in the order in which they are applied; they bear its name."""
    objects = [
        _file(runtime),
        deployment(runtime, config, place, is_up=is_up),
        _budget(runtime),
    ]
    scaling = scaling_of(runtime)
    if scaling is not None and is_up:
        objects.append(_autoscaler(runtime, scaling))
    return objects


def scaling_of(runtime: Runtime) -> Autoscaling | None:
    """How the runtime scales on its own; None where it does not."""
    return autoscaling(runtime.manifest)[0]


def replicas(runtime: Runtime, config: Config) -> int:
    """How many pods a runtime has that is up and is not scaled by an autoscaler."""
    told = runtime.manifest.spec.replicas
    return config.pods_per_runtime if told is None else told


def labels(runtime: Runtime) -> dict[str, str]:
    """On every object of a runtime; they select its pods too, so they never change."""
    return {**OUR_LABELS, RUNTIME_LABEL: runtime.manifest.metadata.name}


def deployment(runtime: Runtime, config: Config, place: Installation, *, is_up: bool) -> Json:
    """The Deployment, without `replicas` where an autoscaler sets them."""
    spec = runtime.manifest.spec
    selector = {"matchLabels": labels(runtime)}
    count = replicas(runtime, config) if is_up else 0
    is_ours = not is_up or scaling_of(runtime) is None
    return {
        **_head(runtime, "apps/v1", "Deployment"),
        "spec": {
            **({"replicas": count} if is_ours else {}),
            "selector": selector,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_S,
            "revisionHistoryLimit": 3,
            # A new pod is ready before an old one goes.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": {
                "metadata": {
                    "labels": {
                        **config.runtime_pod_labels,
                        **(spec.labels or {}),
                        **labels(runtime),
                        SERVICE_LABEL: SERVICE,
                    },
                    "annotations": {
                        **config.runtime_pod_annotations,
                        **(spec.annotations or {}),
                        # Nodes read their file when they start.
                        RUNTIME_HASH: hashlib.sha256(_text(runtime).encode()).hexdigest()[:16],
                    },
                },
                "spec": _spread(pod_spec(runtime.manifest, config, place), selector),
            },
        },
    }


def _spread(pod: Json, selector: Json) -> Json:
    """Pods of a runtime go to different machines, and to different zones, where there are such.

    Zones are not a second constraint: where nodes have no such label, as in many clusters of one's
    own, Kubernetes would leave all of them out of the counting, and spread over nothing at all.
    """
    over_hosts = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": selector,
        # Pods of an older revision are about to go.
        "matchLabelKeys": ["pod-template-hash"],
    }
    over_zones = {
        "weight": 100,
        "podAffinityTerm": {"topologyKey": ZONE, "labelSelector": selector},
    }
    return {
        **pod,
        # What the runtime says of where its pods go is not added to.
        "affinity": {"podAntiAffinity": {PREFERRED: [over_zones]}, **pod.get("affinity", {})},
        "topologySpreadConstraints": [over_hosts],
    }


def _file(runtime: Runtime) -> Json:
    return {**_head(runtime, "v1", "ConfigMap"), "data": {RUNTIME_FILE: _text(runtime)}}


def _text(runtime: Runtime) -> str:
    """What nodes read of the runtime, for which pods are replaced when it changes."""
    spec = runtime.manifest.spec.model_dump(
        mode="json", by_alias=True, exclude_unset=True, exclude_none=True
    )
    document = {
        "apiVersion": runtime.manifest.api_version,
        "kind": "ServingRuntime",
        "metadata": {"name": runtime.manifest.metadata.name},
        "spec": {name: value for name, value in spec.items() if name != "replicas"},
    }
    return json.dumps(document, sort_keys=True)


def _budget(runtime: Runtime) -> Json:
    """One pod may go at a time, also the only one: a drain is never held up."""
    return {
        **_head(runtime, "policy/v1", "PodDisruptionBudget"),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels(runtime)},
        },
    }


def _autoscaler(runtime: Runtime, scaling: Autoscaling) -> Json:
    target: Any = {"type": "Utilization", "averageUtilization": scaling.target}
    return {
        **_head(runtime, "autoscaling/v2", "HorizontalPodAutoscaler"),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": runtime.name},
            "minReplicas": scaling.least,
            "maxReplicas": scaling.most,
            "metrics": [
                {"type": "Resource", "resource": {"name": scaling.metric, "target": target}}
            ],
        },
    }


def _head(runtime: Runtime, api_version: str, kind: str) -> Json:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": runtime.name,
            "namespace": runtime.namespace,
            "labels": labels(runtime),
            "ownerReferences": [runtime.owner.reference()],
        },
    }
