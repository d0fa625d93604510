"""Errors: each message is made of its fields, and empty details are left out."""

import pytest

from mesh.core import errors
from mesh.core.errors import MeshError
from mesh.core.ids import ModelId, NodeId

MODEL, NODE = ModelId("p-1"), NodeId("n1")


@pytest.mark.parametrize(
    ("error", "reason", "message", "details"),
    [
        (
            errors.InvalidRequest("model_name", "required"),
            "InvalidRequest",
            "model_name: required",
            {"field": "model_name"},
        ),
        (
            errors.ModelNotFound("p"),
            "ModelNotFound",
            "predictor 'p' not found",
            {"predictor": "p"},
        ),
        (
            errors.NoSuchResource("node", "n1"),
            "NoSuchResource",
            "node 'n1' not found",
            {"node": "n1"},
        ),
        (
            errors.ModelLoadFailed("no such object", model=MODEL, node=NODE),
            "ModelLoadFailed",
            "model load failed: no such object",
            {"model": "p-1", "node": "n1"},
        ),
        (
            errors.NoSupportingRuntime("pytorch:1"),
            "NoSupportingRuntime",
            "No ServingRuntime supports specified model type and/or protocol",
            {"model_type": "pytorch:1"},
        ),
        (
            errors.RuntimeNotRecognized("triton"),
            "RuntimeNotRecognized",
            "Specified runtime name not recognized",
            {"runtime": "triton"},
        ),
        (
            errors.NoCapacity("all in use", model=MODEL),
            "NoCapacity",
            "no room for model: all in use",
            {"model": "p-1"},
        ),
        (
            errors.NotHere(MODEL, revision=7),
            "NotHere",
            "model 'p-1' is not on this node",
            {"model": "p-1", "revision": "7"},
        ),
        (
            errors.Overloaded("requests", 3),
            "Overloaded",
            "too many requests: the limit is 3",
            {"limit": "3"},
        ),
        (
            errors.Unavailable("starting", model="p-1"),
            "Unavailable",
            "starting",
            {"model": "p-1"},
        ),
        (
            errors.DeadlineExceeded("p", 1.25),
            "DeadlineExceeded",
            "predictor 'p' was still loading after 1.2 s",
            {"predictor": "p"},
        ),
        (
            errors.Conflict("predictors/p"),
            "Conflict",
            "predictors/p was changed by somebody else",
            {"key": "predictors/p"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MeshError) else "",
)
def test_error_says_what_its_fields_say(error, reason, message, details):
    assert error.reason == reason
    assert error.message == str(error) == message
    assert error.details == details


def test_load_failure_without_a_word_on_memory_holds_none():
    assert not errors.ModelLoadFailed("bad", model=MODEL).holds_memory
    assert errors.ModelLoadFailed("bad", model=MODEL, holds_memory=True).holds_memory


def test_error_with_a_huge_field_says_its_beginning():
    error = errors.ModelNotFound("ü" * 10_000)
    assert error.message.startswith("predictor 'üü")
    assert error.message.endswith("ü…")
    assert len(error.message.encode()) <= errors.MAX_MESSAGE_BYTES + 3
    assert len(error.details["predictor"].encode()) <= errors.MAX_DETAIL_BYTES + 3
    assert len(error.name) == 10_000
