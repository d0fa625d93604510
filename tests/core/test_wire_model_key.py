"""The `modelKey` of the SPI."""

import json
from dataclasses import replace

from hypothesis import given

from mesh.core.ids import StorageKey
from mesh.core.spec import ModelSource, ModelType
from mesh.wire.model_key import encode_model_key
from tests.support.strategies import sources


def test_model_key_names_what_there_is_and_leaves_out_the_rest():
    source = ModelSource(ModelType("sklearn"), "path", StorageKey("k"))
    assert encode_model_key(source) == (
        '{"model_type": {"name": "sklearn", "version": ""}, "storage_key": "k"}'
    )


def test_model_key_has_bucket_schema_and_parameters_where_there_are_any():
    source = ModelSource(
        ModelType("onnx", "1"),
        "path",
        StorageKey("k"),
        bucket="b",
        schema_path="schema.json",
        parameters={"region": "eu"},
    )
    assert json.loads(encode_model_key(source)) == {
        "storage_key": "k",
        "bucket": "b",
        "model_type": {"name": "onnx", "version": "1"},
        "schema_path": "schema.json",
        "storage_params": {"region": "eu"},
    }


def test_model_key_that_came_with_the_model_is_kept_as_it_is():
    source = ModelSource(ModelType("sklearn"), "path", StorageKey("k"), key="opaque")
    assert encode_model_key(source) == "opaque"


@given(sources().map(lambda source: replace(source, key="")))
def test_model_key_is_json_that_says_what_the_source_says(source):
    key = json.loads(encode_model_key(source))
    assert key["model_type"] == {"name": source.type.name, "version": source.type.version}
    assert key.get("storage_key", "") == source.storage_key
    assert key.get("bucket", "") == source.bucket
    assert key.get("storage_params", {}) == source.parameters
