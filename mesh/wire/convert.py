"""Resources of KServe's ModelMesh as ours, with a report of what has no equal.

`serving.kserve.io/v1alpha1` Predictors, ServingRuntimes and ClusterServingRuntimes, and `v1beta1`
InferenceServices whose deployment mode is ModelMesh. A field that we do not have is left out and
named; an object that would not serve without it is left out whole. What comes out is checked as any
file is.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.wire.documents import InvalidManifest
from mesh.wire.manifests import API_VERSION, parse_predictor
from mesh.wire.problems import look_up
from mesh.wire.runtime_manifest import parse_runtime

Json = dict[str, Any]

OLD_GROUP, GROUP = "serving.kserve.io/", "wmlserving.ai.ibm.com/"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
DEPLOYMENT_MODE = f"{OLD_GROUP}deploymentMode"
FRAMEWORKS = (
    "sklearn",
    "xgboost",
    "lightgbm",
    "tensorflow",
    "onnx",
    "pytorch",
    "triton",
    "pmml",
)
PREDICTOR_FIELDS = ("modelType", "path", "schemaPath", "storage", "runtime")
RUNTIME_FIELDS = (
    "supportedModelFormats",
    "supportedModelTypes",
    "multiModel",
    "disabled",
    "grpcEndpoint",
    "grpcDataEndpoint",
    "containers",
    "volumes",
    "nodeSelector",
    "affinity",
    "tolerations",
    "labels",
    "annotations",
    "imagePullSecrets",
    "replicas",
    "storageHelper",
    "builtInAdapter",
)
# Known fields without an equal, and what becomes of what they did.
WITHOUT_EQUAL = {
    "protocolVersion": "every runtime here speaks the V2 protocol",
    "protocolVersions": "every runtime here speaks the V2 protocol",
    "gpu": "ModelMesh did not look at it either",
    "serviceAccountName": "models are pulled with the keys of storage-config",
    "httpDataEndpoint": "inference goes over gRPC",
    "transformer": "there are no transformers: deploy it as a service of its own",
    "explainer": "there are no explainers: deploy it as a service of its own",
    "minReplicas": "copies of a model follow its use; spec.minCopies sets the least",
    "maxReplicas": "copies of a model follow its use; spec.maxCopies sets the most",
}
SERVER_TYPES = ("mlserver",)


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one thing: `about` is `Kind/name`, `text` has the field and why."""

    about: str
    text: str
    is_lost: bool = False


@dataclass(slots=True)
class Converted:
    """Our objects, in the order of the old ones; a note that `is_lost` is of one left out."""

    objects: list[Json] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


class _Lost(Exception):
    """The object has no equal."""


class _Notes:
    def __init__(self, about: str) -> None:
        self.about = about
        self.all: list[Note] = []

    def add(self, text: str) -> None:
        self.all.append(Note(self.about, text))

    def left_out(self, where: str, fields: Iterable[str]) -> None:
        for name in fields:
            why = WITHOUT_EQUAL.get(name, "there is no such field")
            self.add(f"{where}.{name}: left out; {why}")


def convert(documents: Iterable[object]) -> Converted:
    """All documents of files for ModelMesh; never raises."""
    done = Converted()
    for document in documents:
        kind, name = look_up(document, "kind"), look_up(document, "metadata", "name")
        notes = _Notes(f"{kind}/{name}")
        try:
            made = _made(document, notes)
        except _Lost as error:
            done.notes += [*notes.all, Note(notes.about, f"not converted: {error}", is_lost=True)]
            continue
        done.objects.append(made)
        done.notes += [*notes.all, *(Note(notes.about, text) for text in _wrong(made))]
    return done


def _made(document: object, notes: _Notes) -> Json:
    if not isinstance(document, dict):
        raise _Lost("not a mapping")
    version, kind = document.get("apiVersion"), document.get("kind")
    maker = MAKERS.get((str(version), str(kind)))
    if maker is None:
        raise _Lost(f"{kind} of {version} is none of ModelMesh's")
    spec = document.get("spec")
    if not isinstance(spec, dict):
        raise _Lost("spec: must be a mapping")
    made_kind, made_spec = maker(document, spec, notes)
    return {
        "apiVersion": API_VERSION,
        "kind": made_kind,
        "metadata": _metadata(document),
        "spec": made_spec,
    }


def _metadata(document: Json) -> Json:
    """Without what a server adds; annotations of the old group get the new one's name."""
    old = _mapping(document.get("metadata"))
    made = {name: old[name] for name in ("name", "namespace", "labels") if name in old}
    annotations = {
        key.replace(OLD_GROUP, GROUP, 1): value
        for key, value in _mapping(old.get("annotations")).items()
        if key not in USED_ANNOTATIONS
    }
    return made | ({"annotations": annotations} if annotations else {})


def _predictor(document: Json, spec: Json, notes: _Notes) -> tuple[str, Json]:
    if look_up(spec, "storage", "persistentVolumeClaim") is not None:
        raise _Lost(
            "spec.storage.persistentVolumeClaim: models are pulled from S3, copy them there"
        )
    notes.left_out("spec", (name for name in spec if name not in PREDICTOR_FIELDS))
    return "Predictor", {name: spec[name] for name in PREDICTOR_FIELDS if name in spec}


def _runtime(document: Json, spec: Json, notes: _Notes) -> tuple[str, Json]:
    if spec.get("multiModel") is not True:
        raise _Lost("spec.multiModel: it serves one model a pod, which is not done here")
    server = look_up(spec, "builtInAdapter", "serverType")
    if server is not None and server not in SERVER_TYPES:
        raise _Lost(f"spec.builtInAdapter.serverType: there is no adapter for {server}")
    notes.left_out("spec", (name for name in spec if name not in RUNTIME_FIELDS))
    made = {name: spec[name] for name in RUNTIME_FIELDS if name in spec}
    formats = made.get("supportedModelFormats")
    if isinstance(formats, list):
        # Here a format is selected on its own unless the file says otherwise; there it is not.
        made["supportedModelFormats"] = [
            {"autoSelect": False, **item} if isinstance(item, dict) else item for item in formats
        ]
    if server == "mlserver":
        notes.add(
            "for MLServer there is deploy/runtimes/mlserver-1.x.yaml, with settings that work"
        )
        if not any(_mapping(item).get("command") for item in _items(spec.get("containers"))):
            notes.add("spec.containers: `wml-serving serve` needs a command")
    elif look_up(spec, "storageHelper", "disabled") is not True:
        notes.add("spec.storageHelper: there is no puller, the runtime must pull its models itself")
    return str(document["kind"]), made


def _inference_service(document: Json, spec: Json, notes: _Notes) -> tuple[str, Json]:
    annotations = _mapping(_mapping(document.get("metadata")).get("annotations"))
    if annotations.get(DEPLOYMENT_MODE) != "ModelMesh":
        raise _Lost(f"metadata.annotations: {DEPLOYMENT_MODE} is not ModelMesh")
    notes.left_out("spec", (name for name in spec if name != "predictor"))
    component = _mapping(spec.get("predictor"))
    framework = next((name for name in ("model", *FRAMEWORKS) if name in component), None)
    if framework is None:
        raise _Lost(
            "spec.predictor: has no model, and containers of ones own cannot share a runtime"
        )
    notes.left_out("spec.predictor", (name for name in component if name != framework))
    model = _mapping(component[framework])
    where = f"spec.predictor.{framework}"
    made: Json = {"modelType": {"name": framework}}
    if framework == "model":
        made["modelType"] = model.get("modelFormat")
    runtime = model.get("runtime") or annotations.get(f"{OLD_GROUP}servingRuntime")
    if runtime:
        made["runtime"] = {"name": runtime}
    made |= _storage(model, annotations, where)
    taken = {"modelFormat", "runtime", "storage", "storageUri"}
    notes.left_out(where, (name for name in model if name not in taken))
    return "Predictor", made


def _storage(model: Json, annotations: Json, where: str) -> Json:
    """Where the model is: by a URI, or by key and path."""
    storage = dict(_mapping(model.get("storage")))
    key = annotations.get(f"{OLD_GROUP}secretKey")
    if key:
        storage.setdefault("key", key)
    schema = annotations.get(f"{OLD_GROUP}schemaPath")
    if schema:
        storage.setdefault("schemaPath", schema)
    uri = model.get("storageUri")
    if uri is None:
        return {"storage": storage}
    if not str(uri).startswith(("s3://", "file://")):
        scheme = str(uri).partition(":")[0]
        why = f"models are pulled from S3 and file://, not from {scheme}, copy them"
        raise _Lost(f"{where}.storageUri: {why}")
    return {"storageUri": uri} | ({"storage": storage} if storage else {})


def _wrong(made: Json) -> list[str]:
    """What our own check has against the result."""
    try:
        if made["kind"] == "Predictor":
            parse_predictor(made)
        else:
            parse_runtime({**made, "kind": "ServingRuntime"})
    except InvalidManifest as error:
        return [f"must still be put right: {problem}" for problem in error.problems]
    return []


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


Maker = Callable[[Json, Json, _Notes], tuple[str, Json]]
MAKERS: Mapping[tuple[str, str], Maker] = {
    (f"{OLD_GROUP}v1alpha1", "Predictor"): _predictor,
    (f"{OLD_GROUP}v1alpha1", "ServingRuntime"): _runtime,
    (f"{OLD_GROUP}v1alpha1", "ClusterServingRuntime"): _runtime,
    (f"{OLD_GROUP}v1beta1", "InferenceService"): _inference_service,
}
USED_ANNOTATIONS = frozenset(
    {
        LAST_APPLIED,
        DEPLOYMENT_MODE,
        f"{OLD_GROUP}secretKey",
        f"{OLD_GROUP}schemaPath",
        f"{OLD_GROUP}servingRuntime",
    }
)
