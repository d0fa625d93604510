"""The `ModelInfo` of the mesh management API, type, path and key, as a ModelSource.

The key is the `modelKey` of the model runtime SPI and belongs to the runtimes: what is known of it
is read for placement, for people and for storage, whatever else it is goes to them as it is.
"""

import json
from collections.abc import Mapping

from mesh.core.errors import InvalidRequest
from mesh.core.ids import RuntimeName, StorageKey, canonical_spec
from mesh.core.spec import ModelSource, ModelType

# Prefixes by which the peers' controller says whether it names a model type or a runtime.
TYPE, RUNTIME = "mt:", "rt:"
# What follows names a protocol, which runtimes here do not differ in.
PROTOCOL = "|"


def read_info(type_text: str, path: str, key: str) -> ModelSource:
    """Raises InvalidRequest where there is no type."""
    if not type_text:
        raise InvalidRequest("modelInfo.type", "required")
    named = type_text.partition(PROTOCOL)[0]
    runtime = named.removeprefix(RUNTIME) if named.startswith(RUNTIME) else ""
    fields = _fields(key)
    return ModelSource(
        type=_type_in(fields) if runtime else _type(named.removeprefix(TYPE)),
        path=path,
        storage_key=StorageKey(_text(fields, "storage_key")),
        bucket=_text(fields, "bucket"),
        schema_path=_text(fields, "schema_path"),
        parameters=_texts(fields, "parameters") | _texts(fields, "storage_params"),
        runtime=RuntimeName(runtime) if runtime else None,
        key=key,
    )


def spec_of(source: ModelSource) -> str:
    """The Predictor's spec, as canonical JSON, that asks for a model like this.

    What only the key says is not in it.
    """
    storage: dict[str, object]
    spec: dict[str, object] = {
        "modelType": {"name": source.type.name, "version": source.type.version},
        "runtime": {"name": source.runtime or ""},
        "schemaPath": source.schema_path,
    }
    if source.parameters:
        bucket = {"bucket": source.bucket} if source.bucket else {}
        parameters = dict(source.parameters) | bucket
        storage = {"key": source.storage_key, "path": source.path, "parameters": parameters}
    else:
        spec["path"] = source.path
        storage = {"s3": {"secretKey": source.storage_key, "bucket": source.bucket}}
    return canonical_spec(spec | {"storage": storage})


def _fields(key: str) -> Mapping[str, object]:
    """The key's fields; none where it is not a JSON object."""
    try:
        fields = json.loads(key)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _type_in(fields: Mapping[str, object]) -> ModelType:
    """The type as the key has it, an object or a text; empty where it has none."""
    said = fields.get("model_type")
    if isinstance(said, dict):
        return ModelType(_text(said, "name"), _text(said, "version"))
    return _type(_text(fields, "model_type"))


def _type(text: str) -> ModelType:
    name, _, version = text.partition(":")
    return ModelType(name, version)


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _texts(fields: Mapping[str, object], name: str) -> dict[str, str]:
    values = fields.get(name)
    if not isinstance(values, dict):
        return {}
    return {key: value for key, value in values.items() if isinstance(value, str)}
