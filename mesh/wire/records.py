"""The layout of the store: keys, and records as JSON.

A field that this version does not know is ignored and one that is missing has its default, so that
versions may mix while a mesh is upgraded. Keys quote what users chose.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from mesh.core.ids import (
    ModelId,
    NodeId,
    PredictorName,
    RuntimeName,
    StorageKey,
    spec_path,
)
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    NodeState,
    Predictor,
    Record,
    RuntimeRecord,
    RuntimeState,
    RuntimeWish,
)
from mesh.core.spec import ModelSource, ModelType

PREDICTORS = "predictors/"
MODELS = "models/"
COPIES = "copies/"
NODES = "nodes/"
CLAIMS = "claims/"
RUNTIMES = "runtimes/"
WANTED = "wanted/"
# No records: see agent.seeded, agent.recall.
SEEDED = "mesh/seeded"
RECALLS = "recalls/"
NO_PARAMETERS: Mapping[str, str] = {}
Value = TypeVar("Value")


class Unreadable(Exception):
    """A value in the store that is no record of the layout."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


def predictor_key(name: PredictorName) -> str:
    return PREDICTORS + quote(name, safe="")


def model_key(model: ModelId) -> str:
    return MODELS + quote(model, safe="")


def copy_key(model: ModelId, node: NodeId) -> str:
    return f"{COPIES}{quote(model, safe='')}/{quote(node, safe='')}"


def claim_key(model: ModelId) -> str:
    return CLAIMS + quote(model, safe="")


def node_key(node: NodeId) -> str:
    return NODES + quote(node, safe="")


def runtime_key(runtime: RuntimeName) -> str:
    return RUNTIMES + quote(runtime, safe="")


def wanted_key(runtime: RuntimeName) -> str:
    return WANTED + quote(runtime, safe="")


def key_parts(key: str) -> tuple[str, tuple[str, ...]]:
    """The prefix of a key and the names that follow it, unquoted."""
    prefix, _, rest = key.partition("/")
    return prefix + "/", tuple(unquote(part) for part in rest.split("/"))


def encode(record: Record) -> bytes:
    """A record as compact JSON; equal records give equal bytes."""
    fields = asdict(record)
    if isinstance(record, BackingModel):
        del fields["common_source"]
        fields["source"] = asdict(record.source)
    return json.dumps(fields, default=_plain, sort_keys=True, separators=(",", ":")).encode()


class Pool:
    """Equal values of records that are read with it are one object: a Predictor and its model have
    names, ids and spec in common. (Interned texts would stay for ever in Python 3.12.)
    """

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def __call__(self, value: Value) -> Value:
        kept: Value = self._kept.setdefault(value, value)
        return kept

    def made(self, key: Any, make: Callable[[], Value]) -> Value:
        """What was made for an equal key, or is now."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: Value = self._kept[key]
        return kept


def decode(key: str, value: bytes, pool: Pool | None = None) -> Record | None:
    """The record under a key; None under a prefix that this version does not know.

    Raises Unreadable where the value is no record.
    """
    reader = READERS.get(key_parts(key)[0])
    if reader is None:
        return None
    try:
        return reader(json.loads(value), pool or Pool())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(key, repr(error)) from error


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted((_item(item) for item in value), key=str)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _item(item: Any) -> object:
    return item if isinstance(item, str) else asdict(item)


def _predictor(fields: dict[str, Any], pool: Pool) -> Predictor:
    return Predictor(
        name=PredictorName(pool(fields["name"])),
        spec=pool(fields["spec"]),
        active=ModelId(pool(fields["active"])),
        target=ModelId(pool(fields["target"])),
        served=fields.get("served", False),
        created_s=fields.get("created_s", 0.0),
        generation=fields.get("generation", 1),
        owner=fields.get("owner", ""),
        min_copies=fields.get("min_copies", 0),
        max_copies=fields.get("max_copies", 0),
    )


def _model(fields: dict[str, Any], pool: Pool) -> BackingModel:
    spec = pool(fields.get("spec", ""))
    return BackingModel(
        id=ModelId(pool(fields["id"])),
        predictor=PredictorName(pool(fields["predictor"])),
        spec=spec,
        common_source=_common_source(fields["source"], spec, pool),
        auto_delete=fields.get("auto_delete", True),
        also=tuple(PredictorName(name) for name in fields.get("also", ())),
    )


def _common_source(fields: dict[str, Any], spec: str, pool: Pool) -> ModelSource:
    """That of a model, as BackingModel keeps it: one object for all that differ in the path alone.

    There are very many: it is made only once.
    """
    if fields["path"] != spec_path(spec):
        return _source(fields, pool)
    fields["path"] = ""
    return pool.made((ModelSource, repr(fields)), lambda: _source(fields, pool))


def _source(fields: dict[str, Any], pool: Pool) -> ModelSource:
    runtime = fields.get("runtime")
    return ModelSource(
        type=_model_type(fields["type"], pool),
        path=fields["path"],
        storage_key=StorageKey(pool(fields["storage_key"])),
        bucket=fields.get("bucket", ""),
        schema_path=fields.get("schema_path", ""),
        parameters=fields.get("parameters") or NO_PARAMETERS,
        runtime=None if runtime is None else RuntimeName(runtime),
        key=fields.get("key", ""),
    )


def _copy(fields: dict[str, Any], pool: Pool) -> CopyRecord:
    return CopyRecord(
        model=ModelId(pool(fields["model"])),
        node=NodeId(pool(fields["node"])),
        state=CopyState(fields["state"]),
        since_s=fields.get("since_s", 0.0),
        size_bytes=fields.get("size_bytes", 0),
        reason=fields.get("reason", ""),
    )


def _node(fields: dict[str, Any], pool: Pool) -> NodeRecord:
    runtime = fields.get("runtime")
    return NodeRecord(
        id=NodeId(pool(fields["id"])),
        state=NodeState(fields["state"]),
        address=fields.get("address", ""),
        runtime=None if runtime is None else RuntimeName(runtime),
        model_types=frozenset(_model_type(item, pool) for item in fields.get("model_types", ())),
        capacity_bytes=fields.get("capacity_bytes", 0),
        used_bytes=fields.get("used_bytes", 0),
        zone=fields.get("zone", ""),
        labels=frozenset(fields.get("labels", ())),
        loading=fields.get("loading", 0),
        rps=fields.get("rps", 0.0),
        oldest_use_s=fields.get("oldest_use_s", 0.0),
        newest_use_s=fields.get("newest_use_s", 0.0),
        joined_s=fields.get("joined_s", 0.0),
    )


def _runtime(fields: dict[str, Any], pool: Pool) -> RuntimeRecord:
    return RuntimeRecord(
        name=RuntimeName(fields["name"]),
        state=RuntimeState(fields["state"]),
        since_s=fields.get("since_s", 0.0),
        model_types=frozenset(_model_type(item, pool) for item in fields.get("model_types", ())),
    )


def _wish(fields: dict[str, Any], pool: Pool) -> RuntimeWish:
    return RuntimeWish(RuntimeName(fields["runtime"]), fields.get("wanted_s", 0.0))


def _model_type(fields: dict[str, Any], pool: Pool) -> ModelType:
    return pool(ModelType(fields["name"], fields.get("version", "")))


READERS: dict[str, Callable[[dict[str, Any], Pool], Record]] = {
    PREDICTORS: _predictor,
    MODELS: _model,
    COPIES: _copy,
    NODES: _node,
    RUNTIMES: _runtime,
    WANTED: _wish,
}
