"""The hash of a spec, and the id of a backing model that follows from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ids import (
    HASH_DIGITS,
    PredictorName,
    canonical_spec,
    model_id,
    spec_hash,
    spec_path,
)
from tests.support.strategies import json_documents, names

EMPTY = (None, "", {}, [], {"deep": {"deeper": None}})


def documented(secret_key: str) -> dict[str, object]:
    return {
        "modelType": {"name": "sklearn"},
        "path": "sklearn/mnist-svm.joblib",
        "storage": {"s3": {"secretKey": secret_key}},
    }


@pytest.mark.parametrize(
    ("secret_key", "expected"),
    [("wml-serving-example-models", "725d74f061"), ("localMinIO", "7702c1b55a")],
)
def test_hash_of_the_documentations_example_is_the_one_it_names(secret_key, expected):
    assert spec_hash(documented(secret_key)) == expected
    assert model_id(PredictorName("example"), documented(secret_key)) == f"example-{expected}"


def test_canonical_spec_is_compact_sorted_and_keeps_its_letters():
    assert canonical_spec({"b": [1, True], "a": {"ö": "ü"}}) == '{"a":{"ö":"ü"},"b":[1,true]}'


@given(st.text())
def test_path_is_read_from_the_canonical_spec(path):
    assert spec_path(canonical_spec(documented("k") | {"path": path})) == path


@pytest.mark.parametrize(
    "canonical", ["", "{", "[]", "{}", '{"path":1}', '{"storage":{"path":"a"}}']
)
def test_spec_without_a_path_has_an_empty_one(canonical):
    assert spec_path(canonical) == ""


@pytest.mark.parametrize("empty", EMPTY)
def test_hash_of_an_empty_optional_field_is_that_without_it(empty):
    spec = documented("k") | {"runtime": empty}
    assert spec_hash(spec) == spec_hash(documented("k"))
    nested = documented("k") | {"storage": {"s3": {"secretKey": "k", "bucket": empty}}}
    assert spec_hash(nested) == spec_hash(documented("k"))


@pytest.mark.parametrize("value", [0, False, 0.0])
def test_hash_of_a_field_that_is_zero_or_false_counts(value):
    assert spec_hash(documented("k") | {"x": value}) != spec_hash(documented("k"))


def test_empty_fields_inside_lists_are_left_out_and_items_stay():
    assert canonical_spec({"a": [{"b": "", "c": 1}, ""]}) == '{"a":[{"c":1},""]}'


@given(st.integers(), st.integers())
def test_hash_with_any_counts_of_copies_is_the_same(least, most):
    counted = documented("k") | {"minCopies": least, "maxCopies": most}
    assert spec_hash(counted) == spec_hash(documented("k"))


@given(json_documents(), st.randoms())
def test_hash_with_fields_in_any_order_is_the_same(spec, random):
    items = list(spec.items())
    random.shuffle(items)
    assert spec_hash(dict(items)) == spec_hash(spec)


@given(json_documents())
def test_canonical_spec_read_back_is_canonical(spec):
    text = canonical_spec(spec)
    assert canonical_spec(json.loads(text)) == text
    assert len(spec_hash(spec)) == HASH_DIGITS


@given(names(), names(), st.sampled_from(["a", "b"]), st.sampled_from(["a", "b"]))
def test_ids_of_different_predictors_or_specs_are_different(one, other, path, other_path):
    first = model_id(PredictorName(one), {"path": path})
    second = model_id(PredictorName(other), {"path": other_path})
    assert (first == second) == ((one, path) == (other, other_path))
