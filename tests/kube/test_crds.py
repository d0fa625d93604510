"""The definitions on a real API server: what it shows, what it refuses, and in which words."""

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube_control_plane import ControlPlane, kubectl
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
API = "wmlserving.ai.ibm.com/v1"
RUNTIME = ROOT / "deploy" / "runtimes" / "mlserver-1.x.yaml"


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> ControlPlane:
    kubectl(control_plane, "apply", "--server-side", "-k", ROOT / "deploy" / "crds")
    of_ours = "app.kubernetes.io/name=wml-serving"
    wait = ("wait", "crd", "--for=condition=Established", "--timeout=30s")
    kubectl(control_plane, *wait, "-l", of_ours)
    # Established is not yet published: `explain` reads what the API server says of itself.
    for kind in ("predictors", "servingruntimes", "clusterservingruntimes"):
        until(partial(explains, control_plane, kind), lambda: "explain does not know our kinds")
    return control_plane


def explains(plane: ControlPlane, kind: str) -> bool:
    command = ["kubectl", "--kubeconfig", str(plane.kubeconfig), "explain", kind]
    return subprocess.run(command, capture_output=True).returncode == 0


def predictor(**spec: Any) -> str:
    whole = {"modelType": {"name": "sklearn"}, **spec}
    meta = {"name": "some", "namespace": "default"}
    return json.dumps({"apiVersion": API, "kind": "Predictor", "metadata": meta, "spec": whole})


def refused(plane: ControlPlane, text: str) -> str:
    command = ["kubectl", "--kubeconfig", str(plane.kubeconfig), "create", "--dry-run=server"]
    command += ["--validate=strict", "-f", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0, done.stdout
    return done.stderr


S3 = {"s3": {"secretKey": "key", "bucket": "models"}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"storage": S3}, "spec.path: required"),
        ({"path": "a"}, "spec.storage: required"),
        ({"storage": {"key": "key"}}, "spec.storage.path: required"),
        (
            {"path": "a", "storage": {"key": "key", "path": "b"}},
            "Only one of spec.path and spec.storage.path can be specified",
        ),
        (
            {"storage": {**S3, "key": "key"}, "path": "a"},
            "spec.storage.s3 cannot be specified with any other keys in spec.storage",
        ),
        (
            {"path": "a", "storage": {"persistentVolumeClaim": {"claimName": "it"}}},
            "spec.storage.PersistentVolumeClaim is not supported",
        ),
        (
            {"path": "a", "storageUri": "s3://bucket/b"},
            "Only one of spec.path and spec.storageUri can be specified",
        ),
        ({"storageUri": "https://host/b"}, "spec.storageUri"),
        (
            {"storageUri": "file:///a", "storage": {"key": "k"}},
            "a file:// URI goes without s3, key, parameters",
        ),
        ({"path": "a", "storage": {"s3": {"secretKey": ".."}}}, "spec.storage.s3.secretKey"),
        ({"path": "a", "storage": {"s3": {}}}, "spec.storage.s3.secretKey"),
        (
            {"storage": {"path": "a", "parameters": {"type": "a/b"}}},
            "type must consist of letters, digits, '-' and '_'",
        ),
        ({"path": "a", "storage": S3, "modelType": {}}, "spec.modelType.name"),
        ({"path": "a", "storage": S3, "minCopies": -1}, "spec.minCopies"),
        (
            {"path": "a", "storage": S3, "minCopies": 2, "maxCopies": 1},
            "spec.minCopies: must not be greater than spec.maxCopies",
        ),
        ({"path": "a", "storage": S3, "pathh": "b"}, 'unknown field "spec.pathh"'),
    ],
)
def test_a_bad_predictor_is_refused_in_the_words_of_the_cli(
    plane: ControlPlane, spec: dict[str, Any], words: str
):
    assert words in refused(plane, predictor(**spec))


def test_a_predictor_begins_as_pending_with_the_documented_columns(plane: ControlPlane):
    kubectl(plane, "apply", "-f", "-", stdin=predictor(path="a", storage=S3))
    try:
        head, row = kubectl(plane, "get", "predictors", "some").splitlines()
        columns = "NAME TYPE AVAILABLE ACTIVEMODEL TARGETMODEL TRANSITION AGE"
        assert head.split() == columns.split()
        assert row.split()[:5] == ["some", "sklearn", "false", "Pending", "UpToDate"]
        assert json.loads(kubectl(plane, "get", "pred", "some", "-o=json"))["spec"] == {
            "modelType": {"name": "sklearn"},
            "path": "a",
            "storage": S3,
        }
        assert "some" in kubectl(plane, "get", "wml-serving")
    finally:
        kubectl(plane, "delete", "predictor", "some")


def test_examples_and_runtimes_are_taken_with_strict_validation(plane: ControlPlane):
    for path in (ROOT / "deploy" / "example-predictors", ROOT / "deploy" / "runtimes"):
        kubectl(plane, "create", "--dry-run=server", "--validate=strict", "-f", path)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("multiModel: true", "multiModel: false", "spec.multiModel"),
        ("serverType: mlserver", "serverType: other", "none is named as spec.builtInAdapter"),
        ("supportedModelTypes:", "supportedModelTypess:", "spec.supportedModelTypess"),
    ],
)
def test_a_bad_runtime_is_refused_naming_the_field(
    plane: ControlPlane, before: str, after: str, words: str
):
    text = RUNTIME.read_text()
    assert before in text
    assert words in refused(plane, text.replace(before, after))


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("predictor.spec.storage.s3.secretKey", "storage key"),
        ("predictor.status.lastFailureInfo.reason", "failure"),
        ("servingruntime.spec.builtInAdapter.memBufferBytes", "memory"),
        ("clusterservingruntime.spec.supportedModelTypes.autoSelect", "DESCRIPTION"),
    ],
)
def test_explain_reaches_the_leaves(plane: ControlPlane, field: str, words: str):
    assert words in kubectl(plane, "explain", field)
