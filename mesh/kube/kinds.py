"""The kinds of objects that are followed, made or read."""

from mesh.kube.port import Kind
from mesh.wire.manifests import API_VERSION

PREDICTOR = Kind(API_VERSION, "Predictor", "predictors", namespaced=True)
SERVING_RUNTIME = Kind(API_VERSION, "ServingRuntime", "servingruntimes", namespaced=True)
CLUSTER_SERVING_RUNTIME = Kind(
    API_VERSION, "ClusterServingRuntime", "clusterservingruntimes", namespaced=False
)
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments", namespaced=True)
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps", namespaced=True)
SECRET = Kind("v1", "Secret", "secrets", namespaced=True)
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", namespaced=True)
EVENT = Kind("v1", "Event", "events", namespaced=True)
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", namespaced=True)
AUTOSCALER = Kind(
    "autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", namespaced=True
)
NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        PREDICTOR,
        SERVING_RUNTIME,
        CLUSTER_SERVING_RUNTIME,
        DEPLOYMENT,
        CONFIG_MAP,
        SECRET,
        LEASE,
        EVENT,
        BUDGET,
        AUTOSCALER,
        NAMESPACE,
    )
}
