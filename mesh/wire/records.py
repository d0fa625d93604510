"""The layout of the store: keys, and records as JSON.

A field that this version does not know is ignored and one that is missing has its default, so that
versions may mix while a mesh is upgraded. Keys quote what users chose.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from typing import Any
from urllib.parse import quote, unquote

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName, StorageKey
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
# No record: see agent.seeded.
SEEDED = "mesh/seeded"
# More texts than the operations of one commit have.
NEAR = 1024


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
    return json.dumps(
        asdict(record), default=_plain, sort_keys=True, separators=(",", ":")
    ).encode()


def decode(key: str, value: bytes) -> Record | None:
    """The record under a key; None under a prefix that this version does not know.

    Raises Unreadable where the value is no record.
    """
    reader = READERS.get(key_parts(key)[0])
    if reader is None:
        return None
    try:
        return reader(json.loads(value))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(key, repr(error)) from error


@lru_cache(maxsize=NEAR)
def _shared(text: str) -> str:
    """One object for equal texts that come near each other: a Predictor and its model, written in
    one commit, have names, ids and spec in common. (Interned texts would stay in Python 3.12.)
    """
    return text


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted((_item(item) for item in value), key=str)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _item(item: Any) -> object:
    return item if isinstance(item, str) else asdict(item)


def _predictor(fields: dict[str, Any]) -> Predictor:
    return Predictor(
        name=PredictorName(_shared(fields["name"])),
        spec=_shared(fields["spec"]),
        active=ModelId(_shared(fields["active"])),
        target=ModelId(_shared(fields["target"])),
        served=fields.get("served", False),
        created_s=fields.get("created_s", 0.0),
        generation=fields.get("generation", 1),
        owner=fields.get("owner", ""),
        min_copies=fields.get("min_copies", 0),
        max_copies=fields.get("max_copies", 0),
    )


def _model(fields: dict[str, Any]) -> BackingModel:
    source = fields["source"]
    runtime = source.get("runtime")
    return BackingModel(
        id=ModelId(_shared(fields["id"])),
        predictor=PredictorName(_shared(fields["predictor"])),
        spec=_shared(fields.get("spec", "")),
        source=ModelSource(
            type=_model_type(source["type"]),
            path=source["path"],
            storage_key=StorageKey(_shared(source["storage_key"])),
            bucket=source.get("bucket", ""),
            schema_path=source.get("schema_path", ""),
            parameters=source.get("parameters", {}),
            runtime=None if runtime is None else RuntimeName(runtime),
            key=source.get("key", ""),
        ),
        auto_delete=fields.get("auto_delete", True),
        also=tuple(PredictorName(name) for name in fields.get("also", ())),
    )


def _copy(fields: dict[str, Any]) -> CopyRecord:
    return CopyRecord(
        model=ModelId(fields["model"]),
        node=NodeId(fields["node"]),
        state=CopyState(fields["state"]),
        since_s=fields.get("since_s", 0.0),
        size_bytes=fields.get("size_bytes", 0),
        reason=fields.get("reason", ""),
    )


def _node(fields: dict[str, Any]) -> NodeRecord:
    runtime = fields.get("runtime")
    return NodeRecord(
        id=NodeId(fields["id"]),
        state=NodeState(fields["state"]),
        address=fields.get("address", ""),
        runtime=None if runtime is None else RuntimeName(runtime),
        model_types=frozenset(_model_type(item) for item in fields.get("model_types", ())),
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


def _runtime(fields: dict[str, Any]) -> RuntimeRecord:
    return RuntimeRecord(
        name=RuntimeName(fields["name"]),
        state=RuntimeState(fields["state"]),
        since_s=fields.get("since_s", 0.0),
        model_types=frozenset(_model_type(item) for item in fields.get("model_types", ())),
    )


def _wish(fields: dict[str, Any]) -> RuntimeWish:
    return RuntimeWish(RuntimeName(fields["runtime"]), fields.get("wanted_s", 0.0))


def _model_type(fields: dict[str, Any]) -> ModelType:
    return ModelType(_shared(fields["name"]), fields.get("version", ""))


READERS: dict[str, Callable[[dict[str, Any]], Record]] = {
    PREDICTORS: _predictor,
    MODELS: _model,
    COPIES: _copy,
    NODES: _node,
    RUNTIMES: _runtime,
    WANTED: _wish,
}
