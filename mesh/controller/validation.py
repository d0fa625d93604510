"""What a cluster cannot run of a ServingRuntime that is valid as a file: it takes names, ports or
paths of the containers beside it, or asks for what nobody would do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mesh.controller.names import (
    GRPC_PORT,
    HTTP_PORT,
    INTERNAL_PORT,
    MESH,
    MODELS_DIR,
    OPERATIONS_PORT,
    SOCKET_DIR,
    adapter_name,
    workload_name,
)
from mesh.controller.scale_annotations import autoscaling, limits
from mesh.wire.quantities import whole_bytes
from mesh.wire.runtime_manifest import Container, ServingRuntimeManifest, endpoint_port

# What `wml-serving adapter` knows; a test compares.
SERVER_TYPES = ("mlserver",)
PORTS = {
    GRPC_PORT: "inference",
    HTTP_PORT: "inference over HTTP",
    INTERNAL_PORT: "other nodes",
    OPERATIONS_PORT: "probes and metrics",
}
PORT_NAMES = ("grpc", "http", "internal", "metrics")
VOLUMES = (
    "models-dir",
    "domain-socket",
    "storage-config",
    "etcd-config",
    "internal-tls",
    "mesh-config",
    "serving-runtime",
    "api-token",
    "scratch",
)
# The default buffer of an adapter.
DEFAULT_BUFFER = 256 * 1024 * 1024
# A Deployment's name, and what its ReplicaSets and pods append to it.
MAX_NAME = 63 - len("-0123456789-01234")


def runtime_problems(runtime: ServingRuntimeManifest) -> tuple[str, ...]:
    """All that stands against running it in a cluster, each with its path."""
    return (
        *_name(runtime),
        *_containers(runtime),
        *_volumes(runtime),
        *_adapter(runtime),
        *_endpoints(runtime),
        *limits(runtime.metadata.annotations or {})[1],
        *autoscaling(runtime)[1],
    )


def memory_bytes(container: Container) -> int:
    """What a container may count on: its request, else its limit, else 0."""
    resources = container.resources
    if resources is None:
        return 0
    asked = (resources.requests or {}).get("memory") or (resources.limits or {}).get("memory")
    return whole_bytes(asked or "0")


def _name(runtime: ServingRuntimeManifest) -> Iterator[str]:
    if len(workload_name(runtime.metadata.name)) > MAX_NAME:
        most = MAX_NAME - len(workload_name(""))
        yield f"metadata.name: must have at most {most} characters, since its pods' names have more"


def _containers(runtime: ServingRuntimeManifest) -> Iterator[str]:
    adapter = runtime.spec.built_in_adapter
    reserved = {MESH} if adapter is None else {MESH, adapter_name(adapter.server_type)}
    for index, container in enumerate(runtime.spec.containers):
        where = f"spec.containers[{index}]"
        if container.name in reserved or container.name.startswith(f"{MESH}-"):
            yield f"{where}.name: {container.name} is reserved for a container of the mesh"
        if container.lifecycle is not None:
            yield f"{where}.lifecycle: cannot be set, the mesh ends containers in its own order"
        yield from _ports(where, container)
        yield from _mounts(where, container)


def _ports(where: str, container: Container) -> Iterator[str]:
    for index, port in enumerate(container.ports):
        at = f"{where}.ports[{index}]"
        if port.container_port in PORTS:
            used = PORTS[port.container_port]
            yield f"{at}.containerPort: {port.container_port} is reserved for {used}"
        if port.name in PORT_NAMES:
            yield f"{at}.name: {port.name} is reserved for a port of the mesh"


def _mounts(where: str, container: Container) -> Iterator[str]:
    for index, mount in enumerate(_mappings(container.volume_mounts)):
        path = str(mount.get("mountPath", "")).rstrip("/")
        if path in (MODELS_DIR, SOCKET_DIR):
            yield f"{where}.volumeMounts[{index}].mountPath: {path} is reserved for the mesh"


def _volumes(runtime: ServingRuntimeManifest) -> Iterator[str]:
    for index, volume in enumerate(_mappings(runtime.spec.volumes)):
        if volume.get("name") in VOLUMES:
            name = volume["name"]
            yield f"spec.volumes[{index}].name: {name} is reserved for a volume of the mesh"


def _adapter(runtime: ServingRuntimeManifest) -> Iterator[str]:
    spec, adapter = runtime.spec, runtime.spec.built_in_adapter
    if adapter is None:
        yield from _no_adapter(runtime)
        return
    if adapter.server_type not in SERVER_TYPES:
        known = ", ".join(SERVER_TYPES)
        yield f"spec.builtInAdapter.serverType: not known; there is {known}"
    if spec.grpc_data_endpoint is None:
        yield "spec.grpcDataEndpoint: required with spec.builtInAdapter"
    container = runtime.server_container()
    where = f"spec.containers[{spec.containers.index(container)}]"
    memory, buffer = memory_bytes(container), adapter.mem_buffer_bytes
    if not memory:
        yield f"{where}.resources.requests.memory: required, models are loaded up to it"
    elif memory <= (DEFAULT_BUFFER if buffer is None else buffer):
        yield f"{where}.resources.requests.memory: must be more than builtInAdapter.memBufferBytes"


def _no_adapter(runtime: ServingRuntimeManifest) -> Iterator[str]:
    spec = runtime.spec
    if spec.grpc_endpoint is None:
        yield "spec.grpcEndpoint: required without spec.builtInAdapter"
    if spec.storage_helper is None or not spec.storage_helper.disabled:
        yield (
            "spec.storageHelper.disabled: must be true without spec.builtInAdapter, as nothing but"
            " the runtime itself pulls its models"
        )


def _endpoints(runtime: ServingRuntimeManifest) -> Iterator[str]:
    spec, adapter = runtime.spec, runtime.spec.built_in_adapter
    if adapter is not None and (managed := adapter.runtime_management_port) in PORTS:
        where = "spec.builtInAdapter.runtimeManagementPort"
        yield f"{where}: {managed} is reserved for {PORTS[managed]}"
    for name, endpoint in (
        ("grpcEndpoint", spec.grpc_endpoint),
        ("grpcDataEndpoint", spec.grpc_data_endpoint),
    ):
        port = endpoint_port(endpoint or "")
        if port in PORTS:
            yield f"spec.{name}: port {port} is reserved for {PORTS[port]}"
        if (endpoint or "").startswith(f"unix:{SOCKET_DIR}/"):
            yield f"spec.{name}: {SOCKET_DIR} is reserved for the mesh"


def _mappings(items: Any) -> Iterator[Mapping[str, Any]]:
    """The mappings of a list that only Kubernetes checks."""
    if isinstance(items, list | tuple):
        yield from (item if isinstance(item, Mapping) else {} for item in items)
