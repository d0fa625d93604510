"""The pod of a runtime: its own containers, the adapter, and the node. Pure.

    node (mesh) --unix socket--> adapter --loopback--> runtime
         \\__________ inference __________________________/

All containers pass the `restricted` level. They have users of their own; what they share belongs to
the group that `fsGroup` names. Only the adapter has a token of the API, to follow the Secret with
the storage keys.

Containers are told to end all at once, but the node still serves, and hands its models over. So the
others have a `preStop` that asks the node, and is answered once it is done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from mesh.controller.config import Config
from mesh.controller.names import (
    ETC,
    ETCD_SECRET,
    GRPC_PORT,
    HTTP_PORT,
    INTERNAL_PORT,
    MESH,
    MESH_CONFIG_MAP,
    MODELS_DIR,
    OPERATIONS_PORT,
    OUR_USER,
    RUNTIME_ACCOUNT,
    SOCKET_DIR,
    STORAGE_DIR,
    TLS_SECRET,
    TOKEN_DIR,
    adapter_name,
    workload_name,
)
from mesh.controller.scale_annotations import limits
from mesh.controller.validation import memory_bytes
from mesh.wire.quantities import whole_bytes
from mesh.wire.runtime_manifest import (
    BuiltInAdapter,
    Container,
    ServingRuntimeManifest,
    endpoint_port,
)

Json = dict[str, Any]

LOOPBACK = "127.0.0.1"
SOCKET = f"{SOCKET_DIR}/adapter.sock"
RUNTIME_FILE = "runtime.json"
GIB = 2**30
# A connection ends within a tenth of its age, and its client lets go of it; then come requests, and
# those that are passed on.
AGE_SLACK = 1.1
IN_FLIGHT_S = 10 + 30 + 10 + 30
# The proxies of all machines have heard by then that a pod ends.
LINGER_S = 3
DROP_ALL: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
OURS: Json = {**DROP_ALL, "runAsUser": OUR_USER, "readOnlyRootFilesystem": True}


@dataclass(frozen=True, slots=True)
class Installation:
    """Our own image, and what `node --store` is told, if it is not the Secret with etcd."""

    image: str
    store: str = ""


def pod_spec(runtime: ServingRuntimeManifest, config: Config, place: Installation) -> Json:
    """A pod's spec, for a runtime that `validation` has nothing against."""
    spec = runtime.spec
    adapter = spec.built_in_adapter
    containers = [_node(runtime, config, place)]
    if adapter is not None:
        containers.append(_adapter(runtime, adapter, config, place))
    containers += [_own(runtime, container) for container in spec.containers]
    secrets = [{"name": name} for name in config.image_pull_secrets]
    further = {
        "imagePullSecrets": [*secrets, *(spec.image_pull_secrets or [])],
        "nodeSelector": spec.node_selector,
        "affinity": spec.affinity,
        "tolerations": spec.tolerations,
    }
    return {
        "serviceAccountName": RUNTIME_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_period_s(config),
        "securityContext": {
            "runAsNonRoot": True,
            "fsGroup": OUR_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
        "volumes": _volumes(runtime, config, place),
        **{name: value for name, value in further.items() if value},
    }


def grace_period_s(config: Config) -> int:
    """How long a pod may take to end: what a node that leaves waits for at most, and some more."""
    age_s = config.connection_age_seconds * AGE_SLACK
    return round(config.hand_over_seconds + LINGER_S + age_s + IN_FLIGHT_S + 15)


def _node(runtime: ServingRuntimeManifest, config: Config, place: Installation) -> Json:
    control, data = targets(runtime)
    told = {
        "store": place.store or f"{ETC}/etcd/etcd_connection",
        "store-prefix": "$(POD_NAMESPACE)",
        "runtime": control,
        "data": data,
        "serving-runtime": f"{ETC}/runtime/{RUNTIME_FILE}",
        "listen": f"0.0.0.0:{GRPC_PORT}",
        "rest-listen": f"0.0.0.0:{HTTP_PORT}",
        "internal": f"0.0.0.0:{INTERNAL_PORT}",
        "address": f"$(POD_IP):{INTERNAL_PORT}",
        "operations": f"0.0.0.0:{OPERATIONS_PORT}",
        "tls": f"{ETC}/tls",
        "zone": "$(NODE_NAME)",
        "policy": f"{ETC}/mesh/policy.yaml",
        "dataplane": f"{ETC}/mesh/dataplane.yaml",
        "connection-age": config.connection_age_seconds,
        "hand-over": config.hand_over_seconds,
        "linger": LINGER_S,
        "log-format": "json",
        "log-level": config.log_level,
    }
    mounts = [
        _mount("internal-tls", f"{ETC}/tls", is_read_only=True),
        _mount("serving-runtime", f"{ETC}/runtime", is_read_only=True),
        _mount("mesh-config", f"{ETC}/mesh", is_read_only=True),
        *(_mount("domain-socket", folder) for folder in _socket_dirs(runtime)),
        _mount("scratch", "/tmp"),  # noqa: S108 - in a container
    ]
    if not place.store:
        mounts.append(_mount("etcd-config", f"{ETC}/etcd", is_read_only=True))
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_IP": "status.podIP",
        "NODE_NAME": "spec.nodeName",
    }
    return {
        "name": MESH,
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["node", *(f"--{name}={value}" for name, value in told.items())],
        "env": [_field(name, path) for name, path in fields.items()],
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "internal", "containerPort": INTERNAL_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": OPERATIONS_PORT, "protocol": "TCP"},
        ],
        # A node that starts first reads the store, which may be away.
        "startupProbe": _probe("/livez", period_s=1, failures=180),
        "livenessProbe": _probe("/livez", period_s=10, failures=6, timeout_s=5),
        "readinessProbe": _probe("/readyz", period_s=2, failures=5, timeout_s=3),
        "resources": config.model_mesh_resources.as_kubernetes(),
        "securityContext": OURS,
        "volumeMounts": mounts,
    }


def _adapter(
    runtime: ServingRuntimeManifest, adapter: BuiltInAdapter, config: Config, place: Installation
) -> Json:
    return {
        "name": adapter_name(adapter.server_type),
        "image": place.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["adapter", adapter.server_type],
        "env": [
            _field("POD_NAMESPACE", "metadata.namespace"),
            *_variables(_adapter_env(runtime, adapter, config)),
        ],
        "lifecycle": _waits_for_node(),
        "resources": config.adapter_resources.as_kubernetes(),
        "securityContext": OURS,
        "volumeMounts": [
            _mount("models-dir", MODELS_DIR),
            _mount("domain-socket", SOCKET_DIR),
            _mount("storage-config", STORAGE_DIR),
            _mount("api-token", TOKEN_DIR, is_read_only=True),
            _mount("scratch", "/tmp"),  # noqa: S108 - in a container
        ],
    }


def _adapter_env(
    runtime: ServingRuntimeManifest, adapter: BuiltInAdapter, config: Config
) -> dict[str, str]:
    """The disk is a little less than its volume: Kubernetes counts blocks, and folders."""
    given = {
        "MEM_BUFFER_BYTES": adapter.mem_buffer_bytes,
        "LOADTIME_TIMEOUT": adapter.model_loading_timeout_millis,
    }
    return {
        "ADAPTER_SOCKET": SOCKET,
        "RUNTIME_PORT": str(adapter.runtime_management_port),
        "CONTAINER_MEM_REQ_BYTES": str(memory_bytes(runtime.server_container())),
        "ROOT_MODEL_DIR": MODELS_DIR,
        "MODEL_DISK_BYTES": str(whole_bytes(cache_size(runtime, config)) * 15 // 16),
        "STORAGE_CONFIG_DIR": STORAGE_DIR,
        "STORAGE_SECRET_NAME": config.storage_secret_name,
        "LOG_FORMAT": "json",
        "LOG_LEVEL": config.log_level,
        **{name: str(value) for name, value in given.items() if value is not None},
        **limits(runtime.metadata.annotations or {})[0],
        **{item.name: item.value for item in adapter.env},
    }


def _own(runtime: ServingRuntimeManifest, container: Container) -> Json:
    """A container of the runtime's: as it was written, with what the pod needs of it."""
    written = container.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_unset=True
    )
    mounts = [*(written.get("volumeMounts") or [])]
    mounts.append(_mount("models-dir", MODELS_DIR))
    # The adapter's socket is no business of the runtime's.
    own = (folder for folder in _socket_dirs(runtime) if folder != SOCKET_DIR)
    mounts += [_mount("domain-socket", folder) for folder in own]
    return {
        "imagePullPolicy": "IfNotPresent",
        **written,
        "lifecycle": _waits_for_node(),
        "securityContext": {**DROP_ALL, **(written.get("securityContext") or {})},
        "volumeMounts": mounts,
    }


def targets(runtime: ServingRuntimeManifest) -> tuple[str, str]:
    """Where the node finds the adapter, or the runtime's own one, and where inference."""
    spec = runtime.spec
    own = _target(spec.grpc_endpoint or "")
    control = own if spec.built_in_adapter is None else f"unix:{SOCKET}"
    return control, _target(spec.grpc_data_endpoint) if spec.grpc_data_endpoint else control


def _target(endpoint: str) -> str:
    port = endpoint_port(endpoint)
    return endpoint if port is None else f"{LOOPBACK}:{port}"


def _socket_dirs(runtime: ServingRuntimeManifest) -> list[str]:
    """The folders with sockets between the containers: the adapter's, and the runtime's own."""
    paths = (t.removeprefix("unix:") for t in targets(runtime) if t.startswith("unix:"))
    return sorted({str(PurePosixPath(path).parent) for path in paths})


def _volumes(runtime: ServingRuntimeManifest, config: Config, place: Installation) -> list[Json]:
    token = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [_item("ca.crt")]}},
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    volumes = [
        _volume("models-dir", emptyDir={"sizeLimit": cache_size(runtime, config)}),
        _volume("scratch", emptyDir={}),
        _volume("internal-tls", secret={"secretName": TLS_SECRET, "defaultMode": 0o440}),
        _volume("mesh-config", configMap={"name": MESH_CONFIG_MAP}),
        _volume("serving-runtime", configMap={"name": workload_name(runtime.metadata.name)}),
    ]
    if _socket_dirs(runtime):
        sockets = {"medium": "Memory", "sizeLimit": "1Mi"}
        volumes.append(_volume("domain-socket", emptyDir=sockets))
    if not place.store:
        secret = {"secretName": ETCD_SECRET, "defaultMode": 0o440}
        volumes.append(_volume("etcd-config", secret=secret))
    if runtime.spec.built_in_adapter is not None:
        in_memory = {"medium": "Memory", "sizeLimit": "8Mi"}
        volumes.append(_volume("storage-config", emptyDir=in_memory))
        volumes.append(_volume("api-token", projected={"sources": token, "defaultMode": 0o440}))
    return [*volumes, *(runtime.spec.volumes or [])]


def cache_size(runtime: ServingRuntimeManifest, config: Config) -> str:
    """Room for model files: those of loaded models take less than the memory, and there are those
    that are being pulled, or kept for the next time.
    """
    if config.model_cache.size_limit is not None:
        return config.model_cache.size_limit
    limits = (_memory_limit(container) for container in runtime.spec.containers)
    return f"{(2 * sum(limits) + GIB) // 2**20}Mi"


def _memory_limit(container: Container) -> int:
    resources = container.resources
    limit = (resources.limits or {}).get("memory") if resources is not None else None
    return whole_bytes(limit) if limit is not None else memory_bytes(container)


def _waits_for_node() -> Json:
    return {"preStop": {"httpGet": {"path": "/prestop", "port": OPERATIONS_PORT, "scheme": "HTTP"}}}


def _probe(path: str, *, period_s: int, failures: int, timeout_s: int = 1) -> Json:
    return {
        "httpGet": {"path": path, "port": "metrics", "scheme": "HTTP"},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }


def _field(name: str, path: str) -> Json:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def _variables(env: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in env.items()]


def _mount(name: str, path: str, *, is_read_only: bool = False) -> Json:
    read_only = {"readOnly": True} if is_read_only else {}
    return {"name": name, "mountPath": path, **read_only}


def _volume(name: str, **source: Json) -> Json:
    return {"name": name, **source}


def _item(key: str) -> Json:
    return {"key": key, "path": key}
