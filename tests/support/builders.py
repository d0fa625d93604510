"""Short ways to make what tests are about."""

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName, StorageKey, canonical_spec
from mesh.core.ids import spec_hash as hash_of
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    NodeState,
    Predictor,
    RuntimeRecord,
    RuntimeState,
)
from mesh.core.spec import ModelSource, ModelType, PredictorSpec, RuntimeSpec

SKLEARN = ModelType("sklearn", "0")
RUNTIME = RuntimeSpec(RuntimeName("mlserver-1.x"), frozenset({SKLEARN}))


def document(path: str = "a", type_name: str = "sklearn", key: str = "k") -> dict[str, object]:
    """A Predictor's spec as its file has it."""
    return {
        "modelType": {"name": type_name},
        "path": path,
        "storage": {"s3": {"secretKey": key}},
    }


def source(path: str = "a", type_name: str = "sklearn", runtime: str | None = None) -> ModelSource:
    named = None if runtime is None else RuntimeName(runtime)
    return ModelSource(ModelType(type_name), path, StorageKey("k"), runtime=named)


def spec(name: str = "p", path: str = "a", type_name: str = "sklearn") -> PredictorSpec:
    fields = document(path, type_name)
    return PredictorSpec(
        PredictorName(name), canonical_spec(fields), hash_of(fields), source(path, type_name)
    )


def model_of(name: str = "p", path: str = "a", **fields: str) -> BackingModel:
    wanted = spec(name, path, **fields)
    return BackingModel(
        ModelId(f"{name}-{wanted.hash}"), wanted.name, wanted.canonical, wanted.source
    )


def predictor(
    name: str = "p", active: str = "p-1", target: str | None = None, **fields
) -> Predictor:
    values = {"spec": "{}", "served": False, "created_s": 0.0, "generation": 1} | fields
    return Predictor(
        name=PredictorName(name), active=ModelId(active), target=ModelId(target or active), **values
    )


def copy(model: str, state: CopyState, node: str = "n1", **fields) -> CopyRecord:
    return CopyRecord(ModelId(model), NodeId(node), state, fields.pop("since_s", 0.0), **fields)


def node(node_id: str = "n1", state: NodeState = NodeState.READY, **fields) -> NodeRecord:
    values = {"runtime": RUNTIME.name, "model_types": RUNTIME.model_types, "capacity_bytes": 100}
    return NodeRecord(NodeId(node_id), state, **(values | fields))


def runtime_record(
    name: str = RUNTIME.name, state: RuntimeState = RuntimeState.ZERO, since_s: float = 0.0
) -> RuntimeRecord:
    return RuntimeRecord(RuntimeName(name), state, since_s, RUNTIME.model_types)
