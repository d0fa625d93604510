"""Runtimes as who starts and stops them tells of them."""

import pytest

from mesh.core.ids import RuntimeName
from mesh.core.records import RuntimeRecord, RuntimeState
from mesh.core.spec import ModelType
from mesh.wire.documents import InvalidManifest
from mesh.wire.runtime_resource import parse_runtime_state


def told(name="r", spec=None, status=None):
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "ServingRuntime",
        "metadata": {"name": name, "uid": "7"},
        "spec": {"supportedModelTypes": [{"name": "onnx"}], **(spec or {})},
        "status": {"state": "Zero", "since": "2023-11-14T22:13:20Z"} if status is None else status,
    }


def test_runtime_is_read_and_what_is_not_needed_is_not():
    spec = {
        "supportedModelTypes": [
            {"name": "sklearn", "version": "0", "autoSelect": True, "newer": 1},
            {"name": "onnx", "autoSelect": False},
            {"name": "xgboost"},
        ],
        "containers": "anything",
    }
    assert parse_runtime_state(told(spec=spec)) == RuntimeRecord(
        RuntimeName("r"),
        RuntimeState.ZERO,
        1_700_000_000.0,
        frozenset({ModelType("sklearn", "0"), ModelType("xgboost")}),
    )


@pytest.mark.parametrize(
    ("since", "since_s"),
    [
        ("2023-11-14T22:13:20.5+00:00", 1_700_000_000.5),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        (None, 0.0),
    ],
)
def test_time_is_read_as_rfc_3339_has_it(since, since_s):
    record = parse_runtime_state(told(status={"state": "Starting", "since": since}))
    assert record is not None
    assert (record.state, record.since_s) == (RuntimeState.STARTING, since_s)


def test_types_may_be_called_formats():
    spec = {"supportedModelTypes": None, "supportedModelFormats": [{"name": "onnx"}]}
    record = parse_runtime_state(told(spec=spec))
    assert record is not None
    assert record.model_types == {ModelType("onnx")}


def test_disabled_runtime_is_none():
    assert parse_runtime_state(told(spec={"disabled": True})) is None


def test_everything_wrong_is_said_at_once():
    with pytest.raises(InvalidManifest) as caught:
        parse_runtime_state(told("", {"supportedModelTypes": [{}]}, {"state": "Up", "since": "x"}))
    assert caught.value.problems == (
        "metadata.name: String should have at least 1 character",
        "spec.supportedModelTypes[0].name: required",
        "status.state: must be 'Zero', 'Starting' or 'Running'",
        "status.since: must be a time as RFC 3339 has it",
    )
