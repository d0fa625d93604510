"""`describe`: what it prints, in kubectl's style."""

import json
import re
from datetime import UTC, datetime

import pytest

from mesh.wire.pb import wml_management_pb2 as pb
from router.cli.description import label, lines, printable
from tests.support.cli import run, shown
from tests.support.management import DictManagement, listening
from tests.support.world import world

NOW = datetime(2024, 1, 3, 12, 0, 0, tzinfo=UTC)
DESCRIPTION = {
    "models": [
        {"id": "x-1", "role": "Active", "state": "Loaded", "spec": {"path": "a/b"}},
        {"id": "x-2", "role": "Target", "state": "Failed", "spec": {"storage": {"path": "c"}}},
    ],
    "copies": [
        {
            "model": "x-1",
            "node": "n1",
            "state": "Loaded",
            "sizeBytes": 3_100_000,
            "since": "2024-01-03T11:59:00Z",
        },
        {"model": "x-2", "node": "n1", "state": "Failed", "since": "2024-01-03T11:59:50Z"},
    ],
    "history": [
        {
            "time": "2024-01-03T11:59:00Z",
            "firstTime": "2024-01-03T11:50:00Z",
            "count": 3,
            "type": "Loaded",
            "model": "x-1",
            "node": "n1",
        },
        {
            "time": "2024-01-03T11:59:50Z",
            "firstTime": "2024-01-03T11:59:50Z",
            "count": 1,
            "type": "Failed",
            "model": "x-2",
            "node": "n1",
            "message": "no\nsuch \x1b[2J object",
        },
    ],
}
FAILURE = {
    "reason": "ModelLoadFailed",
    "message": "no such object",
    "modelId": "x-2",
    "location": "n1",
    "time": "2024-01-03T11:59:50Z",
}
EXPECTED = """\
Name:         x
Kind:         Predictor
API Version:  wmlserving.ai.ibm.com/v1
Created:      2000-01-01T00:00:00Z (24y ago)
Generation:   1
Spec:
  Model Type:
    Name:  sklearn
  Path:  a/b
  Storage:
    S3:
      Secret Key:  key
Status:
  Available:          true
  Transition Status:  BlockedByFailedLoad
  Progress:           pulling 3.1/12 MB
  Grpc Endpoint:      grpc://localhost:8033
Models:
  Role     State    Model   Path
  ----     -----    -----   ----
  Active   Loaded   x-1     a/b
  Target   Failed   x-2     c
Copies:
  Node   State    For   Size     Model
  ----   -----    ---   ----     -----
  n1     Loaded   60s   3.1 MB   x-1
  n1     Failed   10s            x-2
Last Failure:
  Reason:    ModelLoadFailed
  Message:   no such object
  Model Id:  x-2
  Location:  n1
  Time:      2024-01-03T11:59:50Z (10s ago)
History:
  Age                 What     Node   Model   Message
  ---                 ----     ----   -----   -------
  60s (x3 over 10m)   Loaded   n1     x-1
  10s                 Failed   n1     x-2     no such ?[2J object
"""


@pytest.fixture
def management():
    return DictManagement()


@pytest.fixture
def server(management):
    with listening(management) as address:
        yield address


def test_description_of_a_blocked_predictor_is_complete():
    resource = shown(
        "x",
        transitionStatus="BlockedByFailedLoad",
        progress="pulling 3.1/12 MB",
        grpcEndpoint="grpc://localhost:8033",
        httpEndpoint="",
        lastFailureInfo=FAILURE,
    )
    assert "\n".join(lines(resource | DESCRIPTION, now=NOW)) + "\n" == EXPECTED


def test_description_of_what_has_nothing_says_none():
    printed = "\n".join(lines(shown("x"), now=NOW))
    for title in ("Models", "Copies", "Last Failure", "History"):
        assert f"{title}:  <none>" in printed


def test_failure_without_a_moment_has_no_time():
    resource = shown("x", lastFailureInfo={"reason": "NoSupportingRuntime"})
    printed = "\n".join(lines(resource, now=NOW))
    assert "  Reason:  NoSupportingRuntime\n" in printed
    assert "Time:" not in printed


@pytest.mark.parametrize(
    ("name", "expected"),
    [("secretKey", "Secret Key"), ("s3", "S3"), ("path", "Path"), ("schemaPath", "Schema Path")],
)
def test_labels_are_words(name, expected):
    assert label(name) == expected


def test_values_stay_on_one_line():
    assert printable("a\n b\x07") == "a b?"
    assert printable(True) == "true"


def test_describe_prints_each_of_several_and_fails_for_those_that_are_not_there(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    result = run("describe", "predictors", "x", "a", "y", "b", server=server)
    assert result.exit_code == 1
    assert re.findall(r"^Name: +(\w)$", result.stdout, re.M) == ["x", "y"]
    assert "<none>\n\n\nName:" in result.stdout
    assert result.stderr == (
        'Error from server (NotFound): predictors "a" not found\n'
        'Error from server (NotFound): predictors "b" not found\n'
    )


def test_describe_of_all_names_them_all_or_says_that_there_are_none(management, server):
    assert run("describe", "predictors", server=server).stderr == "No resources found.\n"
    management.resources = {name: shown(name) for name in "xy"}
    result = run("describe", "predictors", server=server)
    assert result.exit_code == 0
    assert re.findall(r"^Name: +(\w)$", result.stdout, re.M) == ["x", "y"]


def test_describe_of_another_resource_is_a_usage_error():
    assert run("describe", "pods").exit_code == 2


async def test_describe_of_a_real_node_has_its_history():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        answer = await w.manage.Describe(pb.DescribeRequest(name="p"))
        printed = "\n".join(lines(json.loads(answer.json), now=datetime.now(UTC)))  # noqa: TID251
        assert re.search(r"Active +Loaded +p-[0-9a-f]{10} +a$", printed, re.M)
        whats = re.findall(r"^  \d+s +(\w+)", printed.partition("History:")[2], re.M)
        assert whats == ["Created", "Loading", "Loaded"]
