"""Names, labels, paths and ports that manifests, controller and users have in common."""

from mesh.wire.manifests import API_VERSION

GROUP = API_VERSION.partition("/")[0]
SERVICE = "wml-serving"
INTERNAL_SERVICE = "wml-serving-internal"
ROUTER = "wml-serving-router"
CONTROLLER = "wmlserving-controller"
RUNTIME_ACCOUNT = "wml-serving-runtime"
ETCD_SECRET = "model-serving-etcd"  # noqa: S105 - a name
AUTHORITY_SECRET = "wml-serving-internal-ca"  # noqa: S105 - a name
TLS_SECRET = "wml-serving-internal-tls"  # noqa: S105 - a name
CONFIG_MAP = "wml-serving-config"
# What was valid of it last, kept by the controller.
KEPT_CONFIG_MAP = "wml-serving-config-in-force"
# What is the same for all nodes: `policy.yaml` and `dataplane.yaml`.
MESH_CONFIG_MAP = "wml-serving-mesh"

# Of a namespace, where a controller works in all that have it.
ENABLED = "wmlserving-enabled"

MANAGED_BY = "app.kubernetes.io/managed-by"
APP = "app.kubernetes.io/name"
# On every object that the controller makes.
OUR_LABELS = {MANAGED_BY: CONTROLLER, APP: SERVICE}
SERVICE_LABEL = f"{GROUP}/service"
RUNTIME_LABEL = f"{GROUP}/runtime"
RUNTIME_HASH = f"{GROUP}/runtime-hash"

GRPC_PORT, HTTP_PORT, INTERNAL_PORT, OPERATIONS_PORT = 8033, 8008, 8034, 2112
# Of our image.
OUR_USER = 10001

MODELS_DIR = "/models"
SOCKET_DIR = "/run/wml-serving"
STORAGE_DIR = "/storage-config"
TOKEN_DIR = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
ETC = "/etc/wml-serving"

MESH = "mesh"


def workload_name(runtime: str) -> str:
    """What everything of a runtime is called: its Deployment, its ConfigMap, its budget."""
    return f"{SERVICE}-{runtime}"


def adapter_name(server_type: str) -> str:
    return f"{server_type}-adapter"
