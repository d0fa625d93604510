"""The controller's configuration: `config.yaml` of the ConfigMap `wml-serving-config`.

What is written there goes over the defaults. The names are those that users of ModelMesh know,
where the setting is the same. A file with anything wrong in it is refused as a whole, and the last
good one stays in force: `Configuration` holds it.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from mesh.controller.names import GRPC_PORT, HTTP_PORT, KEPT_CONFIG_MAP, OUR_LABELS
from mesh.wire.documents import InvalidManifest, load_documents
from mesh.wire.problems import Strict, settled, validated
from mesh.wire.quantities import parse_quantity
from mesh.wire.runtime_manifest import Quantity, Several

KEY = "config.yaml"


def _positive(text: str) -> str:
    if parse_quantity(text) <= 0:
        raise ValueError("must be more than 0")
    return text


Pods = Annotated[int, Field(ge=1, le=1000)]
Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
Amounts = dict[str, Quantity]
ConfigMap = dict[str, Any]


class ContainerResources(Strict):
    """Of a container of ours; as Kubernetes has it."""

    requests: Amounts | None = None
    limits: Amounts | None = None

    def as_kubernetes(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True)


class ScaleToZero(Strict):
    enabled: bool = Field(
        default=True, description="Whether a runtime that no Predictor uses has no pods."
    )
    grace_period_seconds: Seconds = Field(
        default=60, description="How long its pods stay after its last Predictor is gone."
    )
    idle_seconds: Seconds = Field(
        default=0,
        description="After this time without a request, and up to 15 s more, a runtime's pods end,"
        " though Predictors use it; the next request brings them back. 0: never.",
    )


class ModelCache(Strict):
    size_limit: Annotated[Quantity, AfterValidator(_positive)] | None = Field(
        default=None,
        description="Room for model files in each pod, beyond which Kubernetes evicts it. Not set:"
        " twice the memory of the runtime's containers and 1Gi.",
    )


def _mesh_resources() -> ContainerResources:
    return ContainerResources(requests={"cpu": "100m", "memory": "192Mi"}, limits={"memory": "1Gi"})


def _adapter_resources() -> ContainerResources:
    return ContainerResources(requests={"cpu": "50m", "memory": "96Mi"}, limits={"memory": "512Mi"})


class Config(Strict):
    """All keys of `config.yaml`, with their defaults."""

    pods_per_runtime: Pods = Field(
        default=2, description="Pods of a runtime that has no `replicas` of its own."
    )
    inference_service_name: Annotated[str, Field(min_length=1)] = Field(
        default="wml-serving", description="The Service that a Predictor's endpoints name."
    )
    storage_secret_name: Annotated[str, Field(min_length=1)] = Field(
        default="storage-config",
        description="The Secret with the storage keys; adapters need a Role for another one.",
    )
    scale_to_zero: ScaleToZero = Field(default_factory=ScaleToZero)
    model_cache: ModelCache = Field(default_factory=ModelCache)
    model_mesh_resources: ContainerResources = Field(
        default_factory=_mesh_resources, description="Of the container `mesh`."
    )
    adapter_resources: ContainerResources = Field(
        default_factory=_adapter_resources, description="Of a built-in adapter's container."
    )
    runtime_pod_labels: dict[str, str] = Field(
        default_factory=dict, description="On every runtime pod, besides those of its runtime."
    )
    runtime_pod_annotations: dict[str, str] = Field(
        default_factory=dict, description="On every runtime pod, besides those of its runtime."
    )
    image_pull_secrets: Several[str] = Field(
        default=(), description="Names of Secrets with which runtime pods pull their images."
    )
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = Field(
        default="info", description="Of nodes and adapters in runtime pods."
    )
    connection_age_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        default=30,
        description="When a client's connection to a pod of a runtime is renewed, and how long a"
        " pod that ends waits for that.",
    )
    hand_over_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=60, description="How long a pod that ends waits for its models to load elsewhere."
    )

    @property
    def endpoints(self) -> dict[str, str]:
        """Where clients in the cluster reach every Predictor, as its status has it."""
        name = self.inference_service_name
        return {
            "grpcEndpoint": f"grpc://{name}:{GRPC_PORT}",
            "httpEndpoint": f"http://{name}:{HTTP_PORT}",
        }


DEFAULTS = Config()


def read_config(text: str) -> Config:
    """`config.yaml` over the defaults. Raises InvalidManifest with everything wrong in it."""
    documents = load_documents(text)
    if len(documents) > 1:
        raise InvalidManifest((f"{KEY}: must be one document, not {len(documents)}",))
    config, problems = validated(Config, documents[0] if documents else {})
    return settled(config, problems)


class Configuration:
    """The settings in force: those that were valid last.

    `good` is the text that was valid last, to be kept: a controller that begins with a file that is
    wrong has it by `recall` from the one before it.
    """

    def __init__(self) -> None:
        self.now = DEFAULTS
        self.good: str | None = None
        self._seen: str | None = None

    def take(self, config_map: ConfigMap | None) -> tuple[str, ...] | None:
        """Follows the ConfigMap (None: it is gone); what is wrong with it.

        None for a text that was judged before, so that a problem is told once.
        """
        text = _text(config_map)
        if text == self._seen:
            return None
        self._seen = text
        try:
            self.now = read_config(text)
        except InvalidManifest as error:
            return error.problems
        self.good = text if config_map is not None else None
        return ()

    def recall(self, kept: ConfigMap) -> None:
        """Takes what was valid last in the life before; what is valid now comes before it."""
        if self._seen is None or self.good is not None:
            return
        try:
            self.now = read_config(_text(kept))
        except InvalidManifest:
            return  # it was, for another version
        self.good = _text(kept)


def kept_config(config_map: ConfigMap, good: str) -> ConfigMap:
    """The object that keeps what was valid last; it goes with the ConfigMap that users write."""
    meta = config_map["metadata"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": KEPT_CONFIG_MAP,
            "namespace": meta["namespace"],
            "labels": OUR_LABELS,
            "ownerReferences": [owner],
        },
        "data": {KEY: good},
    }


def is_kept(there: ConfigMap, kept: ConfigMap) -> bool:
    """Whether it is kept already, and for the ConfigMap that there is now."""
    owners = [owner.get("uid") for owner in there["metadata"].get("ownerReferences") or ()]
    (owner,) = kept["metadata"]["ownerReferences"]
    return there.get("data") == kept["data"] and owner["uid"] in owners


def _text(config_map: ConfigMap | None) -> str:
    return str(((config_map or {}).get("data") or {}).get(KEY) or "")
