"""The ServingRuntime file: one description of a model server for a cluster and for one machine.

What Kubernetes alone looks at (volumes, probes, affinity) is accepted and not read. Here it is
checked and answered; which processes follow from it is `mesh.local.plan`.
"""

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from mesh.core.ids import RuntimeName
from mesh.core.spec import ModelType, RuntimeSpec
from mesh.wire.manifests import Metadata, Text
from mesh.wire.problems import Strict, given, look_up, settled, validated
from mesh.wire.quantities import parse_quantity

Item = TypeVar("Item")
# The files hold lists; what is read from them is frozen.
Several = Annotated[tuple[Item, ...], Field(strict=False)]
PORT_ENDPOINT = re.compile(r"port:([1-9][0-9]{0,4})")
MAX_PORT = 65535


def _endpoint(text: str) -> str:
    port = endpoint_port(text)
    is_socket = text.startswith("unix:/")
    if not is_socket and (port is None or port > MAX_PORT):
        raise ValueError("must be port:<number> or unix:/<path>")
    return text


def _quantity(value: object) -> str:
    # YAML reads `cpu: 5` as a number, and Kubernetes takes it.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("must be a quantity such as 500m, 2 or 1Gi")  # noqa: TRY004 - for pydantic
    if parse_quantity(str(value)) < 0:
        raise ValueError("must not be negative")
    return str(value)


def endpoint_port(text: str) -> int | None:
    """The port of an endpoint, or None where it is a socket."""
    match = PORT_ENDPOINT.fullmatch(text)
    return int(match[1]) if match is not None else None


Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Quantity = Annotated[str, BeforeValidator(_quantity)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class EnvVar(Strict):
    name: Text
    value: str | None = None
    value_from: Any = None


class ContainerPort(Strict):
    container_port: Port
    name: str | None = None
    protocol: str | None = None
    host_port: Any = None
    host_ip: Any = Field(default=None, alias="hostIP")


class Resources(Strict):
    requests: dict[str, Quantity] | None = None
    limits: dict[str, Quantity] | None = None
    claims: Any = None


class Container(Strict):
    """A container of the runtime's pod; fields of type Any are for Kubernetes alone."""

    name: Text
    image: Text
    command: Several[str] = ()
    args: Several[str] = ()
    env: Several[EnvVar] = ()
    ports: Several[ContainerPort] = ()
    resources: Resources | None = None
    working_dir: Text | None = None
    env_from: Any = None
    image_pull_policy: Any = None
    lifecycle: Any = None
    liveness_probe: Any = None
    readiness_probe: Any = None
    resize_policy: Any = None
    restart_policy: Any = None
    security_context: Any = None
    startup_probe: Any = None
    stdin: Any = None
    stdin_once: Any = None
    termination_message_path: Any = None
    termination_message_policy: Any = None
    tty: Any = None
    volume_devices: Any = None
    volume_mounts: Any = None


class SupportedType(Strict):
    """A model format; one that is not selected on its own is used where a Predictor names us."""

    name: Text
    version: str | None = None
    auto_select: bool = True
    priority: Count | None = None


class EnvText(Strict):
    name: Text
    value: str


class BuiltInAdapter(Strict):
    server_type: Text
    runtime_management_port: Port
    mem_buffer_bytes: Count | None = None
    model_loading_timeout_millis: Count | None = None
    env: Several[EnvText] = ()


class StorageHelper(Strict):
    disabled: bool = False


class ServingRuntimeFields(Strict):
    containers: Several[Container]
    supported_model_types: Several[SupportedType] = ()
    # The newer name of the same list.
    supported_model_formats: Several[SupportedType] = ()
    multi_model: bool
    disabled: bool = False
    grpc_endpoint: Endpoint | None = None
    grpc_data_endpoint: Endpoint | None = None
    built_in_adapter: BuiltInAdapter | None = None
    storage_helper: StorageHelper | None = None
    replicas: Count | None = None
    volumes: Any = None
    node_selector: Any = None
    affinity: Any = None
    tolerations: Any = None
    image_pull_secrets: Any = None
    # Of the pods.
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class ServingRuntimeManifest(Strict):
    """A ServingRuntime's file."""

    api_version: Literal["wmlserving.ai.ibm.com/v1"]
    kind: Literal["ServingRuntime"]
    metadata: Metadata
    spec: ServingRuntimeFields
    status: Any = None

    def to_spec(self) -> RuntimeSpec:
        """What placement needs of it: its name and the types that are selected on their own."""
        listed = self.spec.supported_model_types + self.spec.supported_model_formats
        types = (ModelType(item.name, item.version or "") for item in listed if item.auto_select)
        return RuntimeSpec(RuntimeName(self.metadata.name), frozenset(types))

    def server_container(self) -> Container:
        """The container of the model server: the one named as the adapter's server type."""
        adapter = self.spec.built_in_adapter
        named = (c for c in self.spec.containers if adapter and c.name == adapter.server_type)
        return next(named, self.spec.containers[0])


def parse_runtime(document: object) -> ServingRuntimeManifest:
    """A ServingRuntime from a document; raises InvalidManifest with everything wrong with it."""
    manifest, problems = validated(ServingRuntimeManifest, document)
    return settled(manifest, problems + _conflicts(document))


def _conflicts(document: object) -> list[str]:
    spec = look_up(document, "spec")
    if not isinstance(spec, dict):
        return []
    problems = []
    if given(spec, "supportedModelTypes") and given(spec, "supportedModelFormats"):
        problems.append(
            "Only one of spec.supportedModelTypes and spec.supportedModelFormats can be specified"
        )
    elif all(
        spec.get(name) in (None, []) for name in ("supportedModelTypes", "supportedModelFormats")
    ):
        problems.append("spec.supportedModelTypes: required")
    if spec.get("multiModel") is False:
        problems.append("spec.multiModel: must be true")
    containers = spec.get("containers")
    if isinstance(containers, list):
        problems += _containers(containers, look_up(spec, "builtInAdapter", "serverType"))
    return problems


def _containers(containers: list[object], server_type: object) -> list[str]:
    if not containers:
        return ["spec.containers: required"]
    names = [look_up(container, "name") for container in containers]
    problems = [
        f"spec.containers[{index}].name: given twice"
        for index, name in enumerate(names)
        if name is not None and name in names[:index]
    ]
    if isinstance(server_type, str) and server_type not in names:
        problems.append("spec.containers: none is named as spec.builtInAdapter.serverType")
    return problems
