"""The optional policy on a real API server: what it refuses, `validation` would have refused."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mesh.controller.validation import runtime_problems
from mesh.wire.runtime_manifest import parse_runtime
from tests.controller.runtimes import custom, shipped, shipped_with
from tests.support.kube_control_plane import ControlPlane, kubectl, kubectl_command
from tests.support.stand import ROOT
from tests.support.waiting import until

FOLDER = ROOT / "deploy/validation"


def server(name: str = "server", **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, "image": "x", **fields}]


def with_adapter_twice() -> dict[str, Any]:
    document = shipped()
    document["spec"]["containers"] += server("mlserver-adapter")
    return document


MESH = custom(containers=server("mesh"))


def create(plane: ControlPlane, document: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """As if it were created, without it being so."""
    arguments = ("create", "--dry-run=server", "--validate=strict", "-f", "-")
    command = kubectl_command(plane, *arguments)
    return subprocess.run(
        command, input=json.dumps(document), capture_output=True, text=True, timeout=60
    )


@pytest.fixture(scope="module")
def guarded(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With the definitions and the policy, once the API server acts on it."""
    kubectl(control_plane, "apply", "--server-side", "-k", ROOT / "deploy/crds")
    ours = ("-l", "app.kubernetes.io/name=wml-serving", "--timeout=30s")
    kubectl(control_plane, "wait", "crd", "--for=condition=Established", *ours)
    apply = ("apply", "--server-side", "--validate=strict", "-k", FOLDER)
    assert "serverside-applied" in kubectl(control_plane, *apply)
    until(lambda: create(control_plane, MESH).returncode, lambda: "the policy is not in force")
    yield control_plane
    kubectl(control_plane, "delete", "-k", FOLDER)
    until(lambda: not create(control_plane, MESH).returncode, lambda: "the policy is in force yet")


@pytest.mark.parametrize("document", [custom(), shipped()], ids=["custom", "shipped"])
def test_runtime_that_takes_nothing_of_the_mesh_is_taken(guarded, document):
    done = create(guarded, document)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["ServingRuntime", "ClusterServingRuntime"])
@pytest.mark.parametrize(
    ("document", "words"),
    [
        (MESH, "spec.containers: mesh is reserved for a container of the mesh"),
        (
            custom(containers=server("mesh-x")),
            "spec.containers: mesh-x is reserved for a container of the mesh",
        ),
        (
            with_adapter_twice(),
            "spec.containers: mlserver-adapter is reserved for a container of the mesh",
        ),
        (
            custom(containers=server(ports=[{"containerPort": 9}, {"containerPort": 8034}])),
            "spec.containers: port 8034 of server is reserved for the mesh",
        ),
        (
            custom(containers=server(ports=[{"containerPort": 9, "name": "metrics"}])),
            "spec.containers: port metrics of server is reserved for a port of the mesh",
        ),
        (
            custom(containers=server(volumeMounts=[{"name": "x", "mountPath": "/models/"}])),
            "spec.containers: mountPath /models/ of server is reserved for the mesh",
        ),
        (
            custom(containers=server(lifecycle={"preStop": {"exec": {"command": ["x"]}}})),
            "spec.containers: lifecycle of server cannot be set",
        ),
        (
            custom(volumes=[{"name": "models-dir", "emptyDir": {}}]),
            "spec.volumes: models-dir is reserved for a volume of the mesh",
        ),
        (custom(grpcEndpoint="port:8033"), "spec.grpcEndpoint: port:8033 is reserved"),
        (
            custom(grpcDataEndpoint="unix:/run/wml-serving/x"),
            "spec.grpcDataEndpoint: unix:/run/wml-serving/x is reserved",
        ),
        (
            shipped_with(grpcDataEndpoint="port:8033"),
            "spec.grpcDataEndpoint: port:8033 is reserved",
        ),
        (
            shipped_with({"runtimeManagementPort": 8034}),
            "spec.builtInAdapter.runtimeManagementPort: 8034 is reserved for the mesh",
        ),
    ],
    ids=lambda it: it if isinstance(it, str) else "",
)
def test_what_the_mesh_reserves_is_refused_in_words(guarded, kind: str, document, words: str):
    assert runtime_problems(parse_runtime(document))
    done = create(guarded, document | {"kind": kind})
    assert done.returncode, done.stdout
    assert words in done.stderr
