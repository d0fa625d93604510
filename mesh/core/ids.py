"""Identifiers, each a type of its own, and how a backing model's id follows from its Predictor's
spec.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import NewType

PredictorName = NewType("PredictorName", str)
ModelId = NewType("ModelId", str)
NodeId = NewType("NodeId", str)
RuntimeName = NewType("RuntimeName", str)
StorageKey = NewType("StorageKey", str)
Revision = NewType("Revision", int)

HASH_DIGITS = 10
# A change of a count is no new model.
NOT_HASHED = frozenset({"minCopies", "maxCopies"})


def canonical_spec(spec: Mapping[str, object]) -> str:
    """The spec as compact JSON: keys sorted, empty optional fields left out at every depth."""
    return json.dumps(
        _without_empty(spec), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


def spec_path(canonical: str) -> str:
    """The path in a canonical spec; "" where it has none."""
    try:
        fields = json.loads(canonical)
    except ValueError:
        return ""
    path = fields.get("path") if isinstance(fields, dict) else None
    return path if isinstance(path, str) else ""


def spec_hash(spec: Mapping[str, object]) -> str:
    """The first ten hex digits of SHA-1 over the canonical spec; counts of copies are left out."""
    hashed = {field: value for field, value in spec.items() if field not in NOT_HASHED}
    # SHA-1 names a version here and protects nothing: the ids that users know are made this way.
    return hashlib.sha1(canonical_spec(hashed).encode(), usedforsecurity=False).hexdigest()[
        :HASH_DIGITS
    ]


def model_id(predictor: PredictorName, spec: Mapping[str, object]) -> ModelId:
    """The id of the backing model that a Predictor with this spec serves."""
    return ModelId(f"{predictor}-{spec_hash(spec)}")


def _without_empty(value: object) -> object:
    if isinstance(value, Mapping):
        kept = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
