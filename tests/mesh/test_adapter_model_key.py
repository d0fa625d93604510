"""The modelKey of a LoadModelRequest: what is understood, and how what is not is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.errors import InvalidModel
from mesh.adapters.model_key import is_safe_id, read_request
from mesh.core.ids import StorageKey
from mesh.core.spec import ModelSource, ModelType
from mesh.wire.model_key import encode_model_key
from mesh.wire.pb import model_runtime_pb2 as spi


def _request(key: object, *, kind: str = "sklearn:0") -> spi.LoadModelRequest:
    text = key if isinstance(key, str) else json.dumps(key)
    return spi.LoadModelRequest(modelId="m", modelType=kind, modelPath="p", modelKey=text)


def test_read_request_understands_what_our_nodes_send() -> None:
    source = ModelSource(
        ModelType("xgboost", "1"), "p", StorageKey("k"), "b", "s.json", {"region": "eu"}
    )
    read = read_request(_request(encode_model_key(source)))
    assert read.type == source.type
    assert (read.files.storage_key, read.files.path, read.files.bucket) == ("k", "p", "b")
    assert (read.files.schema_path, read.files.parameters) == ("s.json", {"region": "eu"})


@pytest.mark.parametrize(
    ("key", "kind", "expected"),
    [
        ({"model_type": {"name": "a", "version": "2"}}, "b:1", ModelType("a", "2")),
        ({"model_type": {"name": "a", "version": None}}, "b:1", ModelType("a")),
        ({"model_type": "a"}, "b:1", ModelType("a")),
        ({"model_type": "a:2"}, "b:1", ModelType("a", "2")),
        ({}, "b:1", ModelType("b", "1")),
        ({}, "b", ModelType("b")),
    ],
)
def test_read_request_takes_the_type_in_every_form(
    key: dict[str, object], kind: str, expected: ModelType
) -> None:
    assert read_request(_request({"storage_key": "k", **key}, kind=kind)).type == expected


def test_read_request_takes_the_older_name_of_the_parameters() -> None:
    both = {"storage_key": "k", "parameters": {"a": "1", "b": "1"}, "storage_params": {"b": "2"}}
    assert read_request(_request(both)).files.parameters == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "modelKey: is not JSON"),
        ("{", "modelKey: is not JSON"),
        ("[]", "modelKey: must be a JSON object"),
        ({}, "modelKey.storage_key: required"),
        ({"storage_key": ""}, "modelKey.storage_key: required"),
        ({"storage_key": 1}, "modelKey.storage_key: Input should be a valid string"),
        ({"storage_key": "k", "bucket": 1}, "modelKey.bucket: "),
        ({"storage_key": "k", "schema_path": []}, "modelKey.schema_path: "),
        ({"storage_key": "k", "storage_params": {"a": 1}}, "modelKey.storage_params.a: "),
        ({"storage_key": "k", "parameters": "x"}, "modelKey.parameters: "),
        ({"storage_key": "k", "model_type": 1}, "modelKey.model_type: "),
        ({"storage_key": "k", "model_type": {}}, "modelKey.model_type.name: required"),
        ({"storage_key": "k", "model_type": ""}, "modelKey.model_type.name: required"),
    ],
)
def test_read_request_names_the_field_that_is_wrong(key: object, problem: str) -> None:
    with pytest.raises(InvalidModel) as caught:
        read_request(_request(key))
    assert caught.value.message.startswith(problem)


def test_read_request_names_every_field_that_is_wrong() -> None:
    with pytest.raises(InvalidModel) as caught:
        read_request(_request({"bucket": 1, "model_type": {}}))
    for field in ("storage_key", "bucket", "model_type.name"):
        assert f"modelKey.{field}: " in caught.value.message


def test_read_request_without_any_type_says_so() -> None:
    with pytest.raises(InvalidModel, match=r"modelKey\.model_type: required"):
        read_request(_request({"storage_key": "k"}, kind=""))


@given(st.text())
def test_read_request_of_anything_gives_one_error_type(key: str) -> None:
    with pytest.raises(InvalidModel):
        read_request(_request(key))


@given(st.text(max_size=300))
def test_safe_id_is_one_plain_visible_folder_name(text: str) -> None:
    if is_safe_id(text):
        assert text
        assert not text.startswith(".")
        assert "/" not in text
        assert len(text.encode()) <= 200
        assert text.isprintable()


@pytest.mark.parametrize("text", ["example-mnist-predictor-725d74f061", "a", "A.b_c-1", "ä b"])
def test_safe_id_may_be_any_ordinary_name(text: str) -> None:
    assert is_safe_id(text)
