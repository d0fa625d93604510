"""The `modelKey` of the model runtime SPI: what, and where, a model is, as JSON."""

import json

from mesh.core.spec import ModelSource


def encode_model_key(source: ModelSource) -> str:
    """The JSON that runtimes of the field read: storage_key, bucket, model_type, schema_path and,
    where there are any, storage_params; or the key that the model was registered with, as it is."""
    if source.key:
        return source.key
    fields: dict[str, object] = {
        "storage_key": source.storage_key,
        "bucket": source.bucket,
        "model_type": {"name": source.type.name, "version": source.type.version},
        "schema_path": source.schema_path,
        "storage_params": dict(source.parameters),
    }
    return json.dumps({key: value for key, value in fields.items() if value}, sort_keys=True)
