"""Every file of deploy/ against a real API server, which needs no node for it.

The commands are those of docs/install.md; the fixtures leave the API as they found it.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube_control_plane import (
    KUBECTL_S,
    ControlPlane,
    delete_definitions,
    kubectl,
    kubectl_command,
)
from tests.support.kube_installation import INSTALL, in_overlay, install_block
from tests.support.stand import ROOT

OVERLAYS = ("default", "quickstart", "without-etcd", "all-namespaces")
DEPLOY = ROOT / "deploy"
RUNTIME = DEPLOY / "example-runtime"
PREDICTORS = [*sorted((DEPLOY / "example-predictors").glob("*.yaml")), RUNTIME / "predictor.yaml"]


def run_kubectl(
    plane: ControlPlane, *arguments: str | Path, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Whatever comes of it."""
    return subprocess.run(
        kubectl_command(plane, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=KUBECTL_S,
        cwd=ROOT,
    )


def apply(plane: ControlPlane, folder: Path) -> str:
    arguments = ("apply", "--server-side", "--validate=strict", "-k", folder)
    done = run_kubectl(plane, *arguments)
    assert done.returncode == 0, done.stderr
    # A warning is an offence against the strict level, or a field that goes away.
    assert "Warning" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def defined(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With the definitions, as docs/install.md has it: they come first."""
    apply(control_plane, DEPLOY / "crds")
    wait = (
        "wait",
        "--for=condition=Established",
        "crd",
        "-l",
        "app.kubernetes.io/name=wml-serving",
    )
    kubectl(control_plane, *wait, "--timeout=30s")
    yield control_plane
    delete_definitions(kubectl_command(control_plane), "-k", DEPLOY / "crds", "--ignore-not-found")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_is_taken_strictly_and_again_without_a_difference(
    defined: ControlPlane, overlay: str
):
    folder = DEPLOY / "overlays" / overlay
    assert ".apps/wml-serving-router serverside-applied" in apply(defined, folder)
    diff = run_kubectl(defined, "diff", "--server-side", "-k", folder)
    assert (diff.returncode, diff.stdout) == (0, ""), diff.stderr


@pytest.fixture
def filled(defined: ControlPlane) -> ControlPlane:
    apply(defined, DEPLOY / "overlays/default")
    return defined


def test_example_of_a_runtime_is_taken_strictly(filled: ControlPlane):
    arguments = ("--namespace=wml-serving", "apply", "--validate=strict", "-f")
    done = run_kubectl(filled, *arguments, RUNTIME / "scale.yaml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", PREDICTORS, ids=lambda path: path.stem)
def test_example_is_taken_strictly_and_is_pending_at_first(filled: ControlPlane, path: Path):
    arguments = ("--namespace=wml-serving", "apply", "--validate=strict", "-f", path)
    done = run_kubectl(filled, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    got = kubectl(filled, "--namespace=wml-serving", "get", "-f", path, "-o=json")
    status = json.loads(got)["status"]
    assert status["available"] is False
    assert (status["activeModelState"], status["transitionStatus"]) == ("Pending", "UpToDate")


def test_what_was_changed_in_place_is_named_by_an_upgrade_and_undone_by_force(filled: ControlPlane):
    """`--force-conflicts` is what docs/install.md has users add."""
    config = ("--namespace=wml-serving", "get", "configmap", "wml-serving-config", "-o=json")
    before = json.loads(kubectl(filled, *config))["data"]
    patch = json.dumps({"data": {"config.yaml": "podsPerRuntime: 1\n"}})
    about = ("--namespace=wml-serving", "patch", "configmap", "wml-serving-config")
    kubectl(filled, *about, f"--patch={patch}")
    upgrade = ("apply", "--server-side", "-k", DEPLOY / "overlays/default")
    refused = run_kubectl(filled, *upgrade)
    assert refused.returncode
    assert 'conflict with "kubectl-patch" using v1: .data.config.yaml' in refused.stderr
    assert ".apps/wml-serving-router serverside-applied" in refused.stdout
    kubectl(filled, *upgrade, "--force-conflicts")
    assert json.loads(kubectl(filled, *config))["data"] == before


def test_what_an_overlay_has_as_it_was_changed_in_place_is_no_conflict(filled: ControlPlane):
    quickstart = DEPLOY / "overlays/quickstart"
    patch = json.dumps({"data": {"config.yaml": (quickstart / "config.yaml").read_text()}})
    about = ("--namespace=wml-serving", "patch", "configmap", "wml-serving-config")
    kubectl(filled, *about, f"--patch={patch}")
    apply(filled, quickstart)
    apply(filled, quickstart)
    kubectl(
        filled, "apply", "--server-side", "--force-conflicts", "-k", DEPLOY / "overlays/default"
    )


def delete(plane: ControlPlane, command: str) -> None:
    """A `kubectl delete` of docs/install.md."""
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("kubectl", "delete")
    delete_definitions(kubectl_command(plane), *arguments)


def test_service_without_an_address_is_an_overlay(defined: ControlPlane, tmp_path: Path):
    """That of docs/install.md, where none with an address is."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (shown,) = re.findall(r"^```yml\n([^`]*clusterIP.*?)^```", INSTALL, re.S | re.M)
    headless = tmp_path / "deploy/overlays/headless"
    headless.mkdir()
    (headless / "kustomization.yaml").write_text(shown)
    delete(defined, f"kubectl delete --ignore-not-found -k {DEPLOY / 'overlays/default'}")
    apply(defined, headless)
    got = ("--namespace=wml-serving", "get", "service", "-o=jsonpath={.items[*].spec.clusterIP}")
    assert kubectl(defined, *got).split() == ["None", "None"]  # nodes have such a one in any case
    delete(defined, f"kubectl delete -k {headless}")


def test_uninstalling_leaves_nothing(defined: ControlPlane):
    apply(defined, DEPLOY / "overlays/quickstart")
    for command in install_block("kubectl delete").split("&&"):
        delete(defined, command)
    left = kubectl(
        defined,
        *("get", "crds,namespaces,clusterroles,clusterrolebindings", "-o=name"),
    )
    assert "wml" not in left
    apply(defined, DEPLOY / "crds")  # for the tests after it


def test_uninstalling_one_of_two_leaves_the_other_with_its_predictors_and_rights(
    filled: ControlPlane, tmp_path: Path
):
    """The other is by the overlay of docs/install.md."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    models = tmp_path / "deploy/overlays/models"
    models.mkdir()
    shutil.copy(DEPLOY / "overlays/default/images.yaml", models)
    (shown,) = re.findall(r"^```yml\n([^`]*namespace: models\n.*?)^```", INSTALL, re.S | re.M)
    (models / "kustomization.yaml").write_text(shown)
    apply(filled, models)
    for namespace in ("models", "wml-serving"):
        kubectl(filled, f"--namespace={namespace}", "apply", "-f", PREDICTORS[0])
    one_of_them, _ = install_block("kubectl delete").split("&&")
    delete(filled, in_overlay(one_of_them, "default"))
    assert "wml-serving" not in kubectl(filled, "get", "namespaces", "-o=name")
    kubectl(filled, "--namespace=models", "get", "-f", PREDICTORS[0])
    asked = ("auth", "can-i", "list", "clusterservingruntimes.wmlserving.ai.ibm.com")
    account = "--as=system:serviceaccount:models:wmlserving-controller"
    assert kubectl(filled, *asked, account).strip() == "yes"
    delete(filled, f"kubectl delete -k {models}")
