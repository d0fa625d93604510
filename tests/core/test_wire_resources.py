"""Predictors as people see them."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.records import CopyState, NodeRecord, NodeState, RuntimeRecord, RuntimeState
from mesh.core.spec import ModelType
from mesh.core.status import FailureInfo, ModelState, PredictorStatus, TransitionStatus
from mesh.wire.resources import (
    Endpoints,
    copy_object,
    copy_resource,
    model_resource,
    node_resource,
    predictor_object,
    progress_text,
    runtime_resource,
    size_text,
    timestamp,
)
from tests.support.builders import copy, document, model_of, node, predictor

PREDICTOR = predictor("p", spec=json.dumps(document()), created_s=1_700_000_000.9, generation=3)
RESTING = PredictorStatus(
    True, ModelState.LOADED, None, TransitionStatus.UP_TO_DATE, 0, 2, failure=None
)
ENDPOINTS = Endpoints("grpc://wml-serving:8033", "http://wml-serving:8008")


def status_of(status: PredictorStatus, endpoints: Endpoints = ENDPOINTS):
    shown = predictor_object(PREDICTOR, status, endpoints)["status"]
    assert isinstance(shown, dict)
    return json.loads(json.dumps(shown))


def test_predictor_is_shown_with_its_spec_and_its_metadata():
    shown = predictor_object(PREDICTOR, RESTING, ENDPOINTS)
    shown.pop("status")
    assert shown == {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {
            "name": "p",
            "creationTimestamp": "2023-11-14T22:13:20Z",
            "generation": 3,
        },
        "spec": document(),
    }


def test_status_at_rest_has_an_empty_target_and_no_failure():
    assert status_of(RESTING) == {
        "available": True,
        "activeModelState": "Loaded",
        "targetModelState": "",
        "transitionStatus": "UpToDate",
        "failedCopies": 0,
        "totalCopies": 2,
        "grpcEndpoint": "grpc://wml-serving:8033",
        "httpEndpoint": "http://wml-serving:8008",
    }


def test_status_on_the_way_names_the_target_and_only_doors_that_are_open():
    moving = replace(RESTING, target_state=ModelState.FAILED, transition=TransitionStatus.BLOCKED)
    shown = status_of(moving, Endpoints("grpc://localhost:8033"))
    assert (shown["targetModelState"], shown["transitionStatus"]) == (
        "Failed",
        "BlockedByFailedLoad",
    )
    assert shown["httpEndpoint"] == ""


@pytest.mark.parametrize(
    ("location", "time_s", "extra"),
    [
        ("n1", 60.0, {"location": "n1", "time": "1970-01-01T00:01:00Z"}),
        ("", 0.0, {}),
    ],
)
def test_status_after_a_failure_says_which_and_leaves_out_what_it_does_not_know(
    location, time_s, extra
):
    failure = FailureInfo("ModelLoadFailed", "bad file", ModelId("p-1"), location, time_s)
    shown = status_of(replace(RESTING, failure=failure))
    assert (
        shown["lastFailureInfo"]
        == {
            "reason": "ModelLoadFailed",
            "message": "bad file",
            "modelId": "p-1",
        }
        | extra
    )


@given(st.floats(0, 4e9))
def test_timestamps_sort_as_their_times_do(time_s):
    shown = timestamp(time_s)
    assert len(shown) == len("1970-01-01T00:00:00Z")
    assert timestamp(time_s / 2) <= shown


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (12_345, "12 kB"),
        (3_100_000, "3.1 MB"),
        (12_000_000, "12 MB"),
        (4_500_000_000, "4.5 GB"),
        (7 * 10**15, "7000 TB"),
    ],
)
def test_sizes_for_people(size_bytes, text):
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("stage", "done_bytes", "total_bytes", "text"),
    [
        ("pulling", 0, 12_000_000, "pulling"),
        ("pulling", 3_100_000, 12_000_000, "pulling 3.1/12 MB"),
        ("pulling", 3_000, 12_000_000, "pulling 0.0/12 MB"),
        ("pulling", 3_100_000, 0, "pulling 3.1 MB"),
        ("pulling", 5, 7, "pulling 5/7 B"),
        ("loading", 0, 0, "loading"),
    ],
)
def test_progress_for_people(stage, done_bytes, total_bytes, text):
    assert progress_text(stage, done_bytes, total_bytes) == text


def test_copy_is_shown_without_what_it_does_not_have():
    assert copy_object(copy("p-1", CopyState.LOADED, size_bytes=7, since_s=60.0)) == {
        "model": "p-1",
        "node": "n1",
        "state": "Loaded",
        "sizeBytes": 7,
        "since": "1970-01-01T00:01:00Z",
    }
    failed = copy_object(copy("p-1", CopyState.FAILED, reason="bad file"))
    assert (failed["reason"], "sizeBytes" in failed) == ("bad file", False)


def test_copy_as_a_resource_is_named_by_its_model_and_node():
    record = copy("m", CopyState.LOADED, "n1", size_bytes=5)
    assert copy_resource(record) == {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Copy",
        "metadata": {"name": "m/n1"},
        "status": copy_object(record),
    }


def test_model_shows_its_spec_who_refers_to_it_and_what_its_copies_come_to():
    states = (CopyState.LOADED, CopyState.LOADED, CopyState.FAILED, CopyState.LOADING)
    copies = [copy("m", state, f"n{number}") for number, state in enumerate(states)]
    names = frozenset({PredictorName("q"), PredictorName("p")})
    shown = model_resource(model_of("p"), "Loaded", names, copies)
    assert shown["spec"] == document()
    assert shown["metadata"] == {"name": model_of("p").id}
    assert shown["status"] == {
        "state": "Loaded",
        "predictors": ["p", "q"],
        "copies": 2,
        "failedCopies": 1,
        "autoDelete": True,
    }


def test_model_without_a_spec_shows_none():
    assert model_resource(replace(model_of("p"), spec=""), "Standby", (), ())["spec"] == {}


def test_node_shows_what_it_offers_and_what_it_does():
    record = node(joined_s=1_700_000_000.0, rps=1.26, labels=frozenset("ba"), address="h:1")
    assert node_resource(record, 3) == {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Node",
        "metadata": {"name": "n1", "creationTimestamp": "2023-11-14T22:13:20Z"},
        "status": {
            "state": "Ready",
            "runtime": "mlserver-1.x",
            "modelTypes": ["sklearn:0"],
            "copies": 3,
            "loading": 0,
            "usedBytes": 0,
            "capacityBytes": 100,
            "requestsPerSecond": 1.3,
            "zone": "",
            "labels": ["a", "b"],
            "address": "h:1",
        },
    }


def test_node_that_only_routes_has_no_runtime():
    shown = node_resource(NodeRecord(NodeId("n"), NodeState.READY), 0)
    assert shown["metadata"] == {"name": "n"}
    assert isinstance(shown["status"], dict)
    assert shown["status"]["runtime"] == ""


def test_runtime_shows_what_it_takes_and_what_it_is_used_for():
    types = frozenset({ModelType("sklearn", "0"), ModelType("onnx")})
    runtime = RuntimeRecord(RuntimeName("r"), RuntimeState.ZERO, 1_700_000_000.0, types)
    assert runtime_resource(runtime, wanted_s=0.0, last_use_s=1_700_000_001.0, predictors=3) == {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "ServingRuntime",
        "metadata": {"name": "r"},
        "spec": {"supportedModelTypes": [{"name": "onnx"}, {"name": "sklearn", "version": "0"}]},
        "status": {
            "state": "Zero",
            "since": "2023-11-14T22:13:20Z",
            "wanted": "",
            "lastUse": "2023-11-14T22:13:21Z",
            "predictors": 3,
        },
    }
