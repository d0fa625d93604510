"""Predictor files: what they mean, what their hash is, and what is said of bad ones."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.ids import PredictorName, RuntimeName, StorageKey
from mesh.core.spec import LOCAL_FILES, ModelSource, ModelType
from mesh.wire.documents import InvalidManifest, load_documents
from mesh.wire.manifests import parse_predictor, predictor_name

SPEC = {
    "modelType": {"name": "sklearn"},
    "path": "sklearn/mnist-svm.joblib",
    "storage": {"s3": {"secretKey": "wml-serving-example-models"}},
}


def document(spec: object = SPEC, name: object = "x", **fields: object) -> dict[str, object]:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": spec,
        **fields,
    }


def problems(manifest: object) -> tuple[str, ...]:
    with pytest.raises(InvalidManifest) as caught:
        parse_predictor(manifest)
    return caught.value.problems


def spec_with(**fields: object) -> dict[str, Any]:
    return {**SPEC, **fields}


def newer(**storage: object) -> dict[str, Any]:
    return {"modelType": {"name": "onnx"}, "storage": storage}


def test_predictor_of_the_documentation_has_its_hash():
    (loaded,) = load_documents(
        """
        apiVersion: wmlserving.ai.ibm.com/v1
        kind: Predictor
        metadata:
          name: example-mnist-predictor
        spec:
          modelType:
            name: sklearn
          path: sklearn/mnist-svm.joblib
          storage:
            s3:
              secretKey: wml-serving-example-models
        """
    )
    predictor = parse_predictor(loaded)
    assert predictor.name == PredictorName("example-mnist-predictor")
    assert predictor.hash == "725d74f061"
    assert predictor.canonical == (
        '{"modelType":{"name":"sklearn"},"path":"sklearn/mnist-svm.joblib",'
        '"storage":{"s3":{"secretKey":"wml-serving-example-models"}}}'
    )
    assert predictor.source == ModelSource(
        type=ModelType("sklearn"),
        path="sklearn/mnist-svm.joblib",
        storage_key=StorageKey("wml-serving-example-models"),
    )


def test_hash_of_the_other_documented_key():
    spec = spec_with(storage={"s3": {"secretKey": "localMinIO"}})
    assert parse_predictor(document(spec)).hash == "7702c1b55a"


@pytest.mark.parametrize(
    "more", [{"minCopies": 2, "maxCopies": 3}, {"runtime": None}, {"schemaPath": ""}]
)
def test_hash_leaves_out_counts_and_what_is_empty(more):
    assert parse_predictor(document(spec_with(**more))).hash == "725d74f061"


@pytest.mark.parametrize(
    "more", [{"runtime": {"name": "mlserver-1.x"}}, {"schemaPath": "s.json"}, {"path": "other"}]
)
def test_hash_changes_with_the_model(more):
    assert parse_predictor(document(spec_with(**more))).hash != "725d74f061"


def test_source_of_every_older_field():
    spec = {
        "modelType": {"name": "sklearn", "version": "0"},
        "path": "a/b",
        "schemaPath": "a/schema.json",
        "storage": {"s3": {"secretKey": "key.1", "bucket": "models"}},
        "runtime": {"name": "mlserver-1.x"},
    }
    assert parse_predictor(document(spec)).source == ModelSource(
        type=ModelType("sklearn", "0"),
        path="a/b",
        storage_key=StorageKey("key.1"),
        bucket="models",
        schema_path="a/schema.json",
        runtime=RuntimeName("mlserver-1.x"),
    )


def test_source_of_the_newer_storage():
    parameters = {"type": "s3", "bucket": "models"}
    spec = newer(key="k", path="a/b", schemaPath="s.json", parameters=parameters)
    assert parse_predictor(document(spec)).source == ModelSource(
        type=ModelType("onnx"),
        path="a/b",
        storage_key=StorageKey("k"),
        bucket="models",
        schema_path="s.json",
        parameters=parameters,
    )


@pytest.mark.parametrize(
    ("storage", "key"),
    [({}, "default"), ({"parameters": {"type": "s3"}}, "default_s3"), ({"key": "k"}, "k")],
)
def test_storage_key_that_is_not_named_is_the_default_one(storage, key):
    assert parse_predictor(document(newer(path="a", **storage))).source.storage_key == key


@pytest.mark.parametrize(
    ("more", "key"), [({}, "default_s3"), ({"storage": {"s3": {"secretKey": "k"}}}, "k")]
)
def test_storage_uri_gives_bucket_and_path(more, key):
    spec = {"modelType": {"name": "onnx"}, "storageUri": "s3://models/a/b c", **more}
    source = parse_predictor(document(spec)).source
    assert (source.bucket, source.path, source.storage_key) == ("models", "a/b c", key)


def test_file_uri_gives_a_path_and_needs_no_key():
    spec = {"modelType": {"name": "onnx"}, "storageUri": "file:///models/a b%20c"}
    source = parse_predictor(document(spec | {"schemaPath": "/models/s"})).source
    assert (source.bucket, source.path, source.storage_key) == ("", "/models/a b%20c", LOCAL_FILES)
    assert source.schema_path == "/models/s"


@pytest.mark.parametrize("uri", ["file://host/x", "file:///", "file:x", "file:////x", "file://"])
def test_file_uri_without_an_absolute_path_or_with_a_host_is_refused(uri):
    assert set(problems(document({"modelType": {"name": "onnx"}, "storageUri": uri}))) == {
        "spec.storageUri: must be s3://<bucket>/<path> or file:///<path>"
    }


@pytest.mark.parametrize(
    "storage", [{"key": "k"}, {"s3": {"secretKey": "k"}}, {"parameters": {"type": "local"}}]
)
def test_file_uri_with_a_key_is_refused(storage):
    spec = {"modelType": {"name": "onnx"}, "storageUri": "file:///x", "storage": storage}
    assert set(problems(document(spec))) == {
        "spec.storage: a file:// URI goes without s3, key, parameters"
    }


def test_predictor_as_a_server_prints_it_is_taken():
    printed = document(status={"available": True})
    printed["metadata"] = {
        "name": "x",
        "namespace": "default",
        "labels": {"a": "b"},
        "annotations": {"c": "d"},
        "creationTimestamp": "2024-01-01T00:00:00Z",
        "generation": 3,
    }
    assert parse_predictor(printed).hash == "725d74f061"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            spec_with(storage={"s3": {"secretKey": "k"}, "path": "p"}),
            {
                "Only one of spec.path and spec.storage.path can be specified",
                "spec.storage.s3 cannot be specified with any other keys in spec.storage",
            },
        ),
        (
            spec_with(schemaPath="a", storage={"key": "k", "schemaPath": "b"}),
            {"Only one of spec.schemaPath and spec.storage.schemaPath can be specified"},
        ),
        (
            spec_with(storage={"s3": {"secretKey": "k"}, "key": "k"}),
            {"spec.storage.s3 cannot be specified with any other keys in spec.storage"},
        ),
        (
            spec_with(storage={"persistentVolumeClaim": {"claimName": "c"}}),
            {"spec.storage.PersistentVolumeClaim is not supported"},
        ),
        (
            spec_with(storageUri="s3://b/p"),
            {"Only one of spec.path and spec.storageUri can be specified"},
        ),
        (
            {**newer(path="p"), "storageUri": "s3://b/p"},
            {"Only one of spec.storage.path and spec.storageUri can be specified"},
        ),
        (
            {
                "modelType": {"name": "a"},
                "storageUri": "s3://b/p",
                "storage": {"s3": {"secretKey": "k", "bucket": "c"}},
            },
            {"Only one of spec.storage.s3.bucket and spec.storageUri can be specified"},
        ),
    ],
)
def test_two_forms_together_are_refused_in_the_documented_words(spec, expected):
    assert set(problems(document(spec))) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {"spec.modelType: required", "spec.path: required", "spec.storage: required"}),
        (None, {"spec: required"}),
        ("text", {"spec: must be a mapping, not a string"}),
        (spec_with(storage={"s3": {}}), {"spec.storage.s3.secretKey: required"}),
        (spec_with(storage={"s3": None, "key": None}), set()),
        (spec_with(storage={}), {"spec.storage: required"}),
        (newer(key="k"), {"spec.storage.path: required"}),
        (spec_with(path=None), {"spec.path: required"}),
        (spec_with(path=""), {"spec.path: must not be empty"}),
        (spec_with(modelType={"name": ""}), {"spec.modelType.name: must not be empty"}),
        (
            spec_with(modelType={"name": "a", "version": 1}),
            {"spec.modelType.version: must be a string, not a number (quote it)"},
        ),
        (
            spec_with(modelType={"name": True}),
            {"spec.modelType.name: must be a string, not true or false (quote it)"},
        ),
        (spec_with(modelType=["a"]), {"spec.modelType: must be a mapping, not a list"}),
        (spec_with(modeltype={}), {"spec.modeltype: unknown field, did you mean modelType?"}),
        (spec_with(PATH="x"), {"spec.PATH: unknown field, did you mean path?"}),
        (
            spec_with(storage={"s3": {"secretKey": "k", "secretkey": "k"}}),
            {"spec.storage.s3.secretkey: unknown field, did you mean secretKey?"},
        ),
        (spec_with(zzz=1), {"spec.zzz: unknown field"}),
        (spec_with(**{"a\x1bb": 1}), {"spec.'a\\x1bb': unknown field"}),
        (spec_with(minCopies=-1), {"spec.minCopies: must be greater than or equal to 0"}),
        (
            spec_with(minCopies=1.0),
            {"spec.minCopies: must be a whole number, not a decimal number"},
        ),
        (
            spec_with(maxCopies=16**5000),
            {"spec.maxCopies: must be less than or equal to 2147483647"},
        ),
        (
            spec_with(minCopies=3, maxCopies=2),
            {"spec.minCopies: must not be greater than spec.maxCopies"},
        ),
        (
            spec_with(storageUri="http:///x"),
            {
                "spec.storageUri: must be s3://<bucket>/<path> or file:///<path>",
                "Only one of spec.path and spec.storageUri can be specified",
            },
        ),
        (
            newer(path="a", parameters={"type": "../x"}),
            {"spec.storage.parameters: type must consist of letters, digits, '-' and '_'"},
        ),
        (
            newer(path="a", parameters={"region": 1}),
            {"spec.storage.parameters.region: must be a string, not a number (quote it)"},
        ),
        (
            newer(path={"a": 1}, parameters={3: "x"}, key=b"x"),
            {
                "spec.storage.path: must be a string, not a mapping",
                "spec.storage.parameters[3]: must be a string, not a number (quote it)",
                "spec.storage.key: must be a string, not a value of type bytes",
            },
        ),
        (spec_with(path="\ud800"), {"spec: must be valid Unicode"}),
    ],
)
def test_bad_specs_are_named_with_their_path(spec, expected):
    if not expected:
        parse_predictor(document(spec))
    else:
        assert set(problems(document(spec))) == expected


@pytest.mark.parametrize("key", ["", ".", "..", "..a", "../passwd", "a/b", "a\n", "ä", "a" * 254])
def test_storage_key_that_is_no_file_name_is_refused(key):
    (problem,) = problems(document(spec_with(storage={"s3": {"secretKey": key}})))
    assert problem.startswith("spec.storage.s3.secretKey: must consist of")


@pytest.mark.parametrize("name", ["x", "a-b", "a.b-c.d0", "0", "a" * 63 + "." + "b" * 63])
def test_dns_names_are_taken(name):
    assert parse_predictor(document(name=name)).name == name


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", ".a", "a..b", "a/b", "a\n", "..", "ä", "a" * 64]
)
def test_other_names_are_refused(name):
    (problem,) = problems(document(name=name))
    assert problem.startswith("metadata.name: must consist of")


def test_name_with_its_hash_must_fit_a_file_name():
    assert problems(document(name="a." * 100 + "a")) == (
        "metadata.name: must have at most 200 characters",
    )


def test_everything_wrong_is_told_at_once():
    found = problems({"kind": "predictor", "metadata": {"Name": "x"}, "spec": {"pth": 1}})
    assert set(found) == {
        "apiVersion: required",
        "kind: must be Predictor",
        "metadata.name: required",
        "metadata.Name: unknown field, did you mean name?",
        "spec.modelType: required",
        "spec.pth: unknown field, did you mean path?",
        "spec.storage: required",
        "spec.path: required",
    }


def test_message_has_a_line_a_problem_and_a_bound():
    with pytest.raises(InvalidManifest) as caught:
        parse_predictor(document(spec_with(**{f"zz{n}" + "z" * 5000: 1 for n in range(100)})))
    assert str(caught.value) == caught.value.message
    assert caught.value.message.splitlines() == list(caught.value.problems)
    assert caught.value.problems[-1] == "and 80 more problems"
    assert len(caught.value.message) < 4000


def test_values_are_never_quoted():
    spec = spec_with(storage={"s3": {"secretKey": "s3cr3t/x"}}, path=["s3cr3t"])
    assert "s3cr3t" not in str(problems(document(spec)))


@pytest.mark.parametrize("other", [None, [], "x", 3, {}, {"kind": "Predictor", "metadata": "x"}])
def test_document_of_another_shape_is_refused(other):
    assert problems(other)
    with pytest.raises(InvalidManifest):
        predictor_name(other)


def test_name_of_an_invalid_predictor_is_found():
    assert predictor_name({"kind": "Predictor", "metadata": {"name": "x"}}) == "x"


KEYS = st.sampled_from(
    [
        *("apiVersion", "kind", "metadata", "name", "spec", "modelType", "version", "path"),
        *("schemaPath", "storage", "s3", "secretKey", "bucket", "key", "parameters", "storageUri"),
        *("runtime", "minCopies", "maxCopies", "wmlserving.ai.ibm.com/v1", "Predictor"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | KEYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(KEYS, VALUES), VALUES)
def test_any_document_is_a_predictor_or_invalid(fields, spec):
    for candidate in (fields, document(spec), document({**SPEC, **fields}), document(name=spec)):
        try:
            predictor = parse_predictor(candidate)
        except InvalidManifest as error:
            # It must be fit to be sent.
            error.message.encode()
        else:
            assert predictor.source.path
            assert predictor.source.storage_key
