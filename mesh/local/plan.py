"""From a ServingRuntime file to the processes that stand for its pod on one machine. Pure.

A container becomes a process: its program is looked up where the runtime is installed, `/models`
is the folder given for it, and its ports are local ones, since several runtimes may share the
machine. What one machine cannot do is refused rather than left out.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mesh.wire.documents import InvalidManifest
from mesh.wire.quantities import whole_bytes
from mesh.wire.runtime_manifest import (
    BuiltInAdapter,
    Container,
    ServingRuntimeManifest,
    endpoint_port,
)

LOOPBACK = "127.0.0.1"
# Alone, as the start of a path, or as the value of an option: --model-store=/models/x.
MODELS_ROOT = re.compile(r"(^|(?<==))/models(?=/|$)")


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to run: `env` comes on top of what every process of ours has."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A runtime on this machine; `data_address` is where it takes inference, as gRPC writes it."""

    adapter: ProcessSpec
    server: ProcessSpec
    data_address: str


@dataclass(frozen=True, slots=True)
class _Place:
    """What stands in for a pod's paths and ports."""

    models_dir: Path
    ports: Mapping[int, int]

    def text(self, text: str) -> str:
        return MODELS_ROOT.sub(lambda _: str(self.models_dir), text)

    def env_value(self, value: str) -> str:
        for declared, local in self.ports.items():
            if value == str(declared):
                return str(local)
        return self.text(value)


def declared_ports(runtime: ServingRuntimeManifest) -> tuple[int, ...]:
    """The ports that the file speaks of and that need a local one each, in order."""
    spec = runtime.spec
    ports = {port.container_port for port in runtime.server_container().ports}
    if spec.built_in_adapter is not None:
        ports.add(spec.built_in_adapter.runtime_management_port)
    data_port = endpoint_port(spec.grpc_data_endpoint or "")
    return tuple(sorted(ports if data_port is None else ports | {data_port}))


def plan(
    runtime: ServingRuntimeManifest,
    *,
    models_dir: Path,
    socket: Path,
    storage_config_dir: Path,
    ports: Mapping[int, int],
    runtime_bin: Path,
) -> LocalRuntime:
    """The processes of a runtime: `ports` has a local port for each of `declared_ports`.

    Raises InvalidManifest where the file asks for what one machine cannot do.
    """
    container, adapter = runtime.server_container(), runtime.spec.built_in_adapter
    problems = _problems(runtime, container)
    if problems or adapter is None:
        raise InvalidManifest(tuple(problems))
    place = _Place(models_dir, ports)
    adapter_env = {
        "ADAPTER_SOCKET": str(socket),
        "RUNTIME_PORT": str(ports[adapter.runtime_management_port]),
        "CONTAINER_MEM_REQ_BYTES": str(whole_bytes(_memory(container) or "0")),
        "ROOT_MODEL_DIR": str(models_dir),
        "STORAGE_CONFIG_DIR": str(storage_config_dir),
        **_limits(adapter),
        **{item.name: place.env_value(item.value) for item in adapter.env},
    }
    own = (sys.executable, "-m", "router", "adapter", adapter.server_type)
    return LocalRuntime(
        adapter=ProcessSpec(f"{adapter.server_type}-adapter", own, adapter_env, models_dir),
        server=_server(container, place, runtime_bin),
        data_address=_data_address(runtime.spec.grpc_data_endpoint or "", place),
    )


def _server(container: Container, place: _Place, runtime_bin: Path) -> ProcessSpec:
    program, *arguments = (*container.command, *container.args)
    return ProcessSpec(
        name=container.name,
        argv=(
            str(runtime_bin / PurePosixPath(program).name),
            *(place.text(argument) for argument in arguments),
        ),
        env={item.name: place.env_value(item.value or "") for item in container.env},
        cwd=Path(place.text(container.working_dir or str(place.models_dir))),
    )


def _limits(adapter: BuiltInAdapter) -> dict[str, str]:
    """What the adapter has defaults for, where the file says otherwise."""
    limits = {
        "MEM_BUFFER_BYTES": adapter.mem_buffer_bytes,
        "LOADTIME_TIMEOUT": adapter.model_loading_timeout_millis,
    }
    return {name: str(value) for name, value in limits.items() if value is not None}


def _data_address(endpoint: str, place: _Place) -> str:
    port = endpoint_port(endpoint)
    if port is not None:
        return f"{LOOPBACK}:{place.ports[port]}"
    return f"unix:{place.text(endpoint.removeprefix('unix:'))}"


def _memory(container: Container) -> str | None:
    resources = container.resources
    if resources is None:
        return None
    requested = (resources.requests or {}).get("memory")
    return requested or (resources.limits or {}).get("memory")


def _problems(runtime: ServingRuntimeManifest, container: Container) -> list[str]:
    """What one machine needs of the file, or cannot do."""
    where = f"spec.containers[{runtime.spec.containers.index(container)}]"
    problems = []
    if runtime.spec.built_in_adapter is None:
        problems.append("spec.builtInAdapter: required to run on one machine")
    if runtime.spec.grpc_data_endpoint is None:
        problems.append("spec.grpcDataEndpoint: required to run on one machine")
    if not container.command:
        problems.append(f"{where}.command: required to run on one machine")
    if _memory(container) is None:
        problems.append(f"{where}.resources.requests.memory: required to run on one machine")
    if container.env_from is not None:
        problems.append(f"{where}.envFrom: cannot be used on one machine")
    problems += [
        f"{where}.env[{index}].valueFrom: cannot be used on one machine"
        for index, item in enumerate(container.env)
        if item.value_from is not None
    ]
    return problems
