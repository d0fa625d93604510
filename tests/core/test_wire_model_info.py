"""The mesh management API's ModelInfo: what is known of it is read, and all of it is kept."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidRequest
from mesh.core.ids import RuntimeName, StorageKey
from mesh.core.spec import ModelSource, ModelType
from mesh.wire.manifests import parse_predictor
from mesh.wire.model_info import read_info, spec_of
from mesh.wire.model_key import encode_model_key
from tests.support.strategies import json_documents, sources, texts

KEY = json.dumps(
    {
        "storage_key": "k",
        "bucket": "b",
        "model_type": {"name": "onnx", "version": "1"},
        "schema_path": "s.json",
        "parameters": {"region": "eu", "old": "1"},
        "storage_params": {"region": "us", "n": 5},
        "disk_size_bytes": 7,
    }
)


def test_info_is_read_with_all_that_its_key_says():
    assert read_info("mt:onnx:1", "p", KEY) == ModelSource(
        ModelType("onnx", "1"),
        "p",
        StorageKey("k"),
        "b",
        "s.json",
        {"region": "us", "old": "1"},
        key=KEY,
    )


@pytest.mark.parametrize(
    ("text", "type_", "runtime"),
    [
        ("keras", ModelType("keras"), None),
        ("keras:2", ModelType("keras", "2"), None),
        ("mt:keras:2|pv:grpc-v2", ModelType("keras", "2"), None),
        ("rt:triton-2.x", ModelType(""), "triton-2.x"),
        ("rt:triton-2.x|pv:grpc-v2", ModelType(""), "triton-2.x"),
    ],
)
def test_type_names_a_model_type_or_a_runtime(text, type_, runtime):
    source = read_info(text, "p", "")
    assert (source.type, source.runtime) == (type_, runtime)


@pytest.mark.parametrize("key", ["", "opaque", "[1]", "5", "[" * 100_000, '{"bucket": 5}'])
def test_key_of_another_kind_says_nothing_here_and_is_kept(key):
    assert read_info("keras", "p", key) == ModelSource(
        ModelType("keras"), "p", StorageKey(""), key=key
    )


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("onnx:1", ModelType("onnx", "1")),
        ({"name": "onnx", "version": None}, ModelType("onnx")),
        ("", ModelType("")),
        ({}, ModelType("")),
        (5, ModelType("")),
    ],
)
def test_type_in_the_key_is_that_of_a_model_for_a_named_runtime(said, expected):
    key = json.dumps({"model_type": said})
    assert read_info("rt:mlserver-1.x", "p", key).type == expected
    assert read_info("keras", "p", key).type == ModelType("keras")


def test_info_without_a_type_is_refused():
    with pytest.raises(InvalidRequest, match=r"^modelInfo.type: required$"):
        read_info("", "p", KEY)


@given(json_documents())
def test_any_key_goes_to_the_runtime_as_it_is(fields):
    key = json.dumps(fields)
    assert encode_model_key(read_info("keras", "p", key)) == key


@given(texts(), texts())
def test_any_text_is_taken_as_a_key_and_a_path(path, key):
    source = read_info("keras", path, key)
    assert (source.path, source.key) == (path, key)


@given(sources())
def test_key_that_is_made_of_a_source_reads_back_as_that_source(source):
    key = encode_model_key(replace(source, key=""))
    read = read_info("rt:r", source.path, key)
    assert read == replace(source, key=key, runtime="r")


@pytest.mark.parametrize(
    "key",
    [
        {"storage_key": "k"},
        {"storage_key": "k", "bucket": "b", "schema_path": "s"},
        {"storage_key": "k", "storage_params": {"region": "eu", "bucket": "b"}},
        {"storage_key": "k", "bucket": "b", "storage_params": {"bucket": "b"}},
    ],
)
@pytest.mark.parametrize("type_text", ["keras", "keras:2", "rt:triton"])
def test_spec_of_a_model_asks_for_the_same_model(key, type_text):
    key = {"model_type": {"name": "keras"}, **key} if type_text == "rt:triton" else key
    source = read_info(type_text, "a/b", json.dumps(key))
    document = {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": "p"},
        "spec": json.loads(spec_of(source)),
    }
    spec = parse_predictor(document)
    assert spec.canonical == spec_of(source)
    read = spec.source
    assert (read.type, read.path, read.storage_key) == (source.type, "a/b", "k")
    assert (read.schema_path, read.runtime) == (source.schema_path, source.runtime)
    assert read.bucket == (source.bucket or source.parameters.get("bucket", ""))
    assert read.parameters == source.parameters


def test_spec_of_a_model_without_storage_says_what_there_is():
    source = ModelSource(ModelType("keras"), "p", StorageKey(""), runtime=RuntimeName("r"))
    assert json.loads(spec_of(source)) == {
        "modelType": {"name": "keras"},
        "path": "p",
        "runtime": {"name": "r"},
    }


@given(st.builds(read_info, texts(1), texts(), json_documents().map(json.dumps)))
def test_spec_of_any_model_is_json(source):
    assert isinstance(json.loads(spec_of(source)), dict)
