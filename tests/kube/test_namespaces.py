"""One controller for every namespace that is labelled: its own rights on a real API server.

There is no node, so no mesh answers: what is seen is what the controller makes before that.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mesh.controller.names import CONTROLLER, ENABLED, TLS_SECRET
from tests.controller.runtimes import DEPLOY
from tests.support.kube_control_plane import ControlPlane, installed, kubectl
from tests.support.ports import free_ports
from tests.support.stand import ROOT
from tests.support.waiting import until

HOME = "wml-serving"
RUNTIME = "wml-serving-mlserver-1.x"
OVERLAY = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {namespace}
resources: [../namespace]
"""


@dataclass
class Estate:
    """An API server with `deploy/overlays/all-namespaces`, and a controller with its account."""

    plane: ControlPlane
    folder: Path
    deploy: Path

    def kubectl(self, *arguments: str) -> str:
        return kubectl(self.plane, *arguments)

    def namespace(self, name: str) -> None:
        """As docs/install.md has it, but for the label."""
        folder = self.deploy / "overlays" / name
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(OVERLAY.format(namespace=name))
        self.kubectl("create", "namespace", name)
        self.kubectl("apply", "--server-side", "--validate=strict", "-k", str(folder))

    def label(self, name: str, value: str) -> None:
        self.kubectl("label", "namespace", name, f"{ENABLED}{value}")

    def made(self, namespace: str) -> set[str]:
        """What only the controller makes."""
        arguments = ("get", "secrets,deployments", f"--namespace={namespace}", "-o=name")
        found = {name.rpartition("/")[2] for name in self.kubectl(*arguments).split()}
        return found & {RUNTIME, TLS_SECRET}

    def until_made(self, namespace: str) -> None:
        until(
            lambda: self.made(namespace) == {RUNTIME, TLS_SECRET},
            lambda: f"{namespace}: {self.made(namespace)}; {self.log()[-2000:]}",
        )

    def log(self) -> str:
        return (self.folder / "controller.log").read_text()


@pytest.fixture(scope="module")
def estate(control_plane: ControlPlane, tmp_path_factory) -> Iterator[Estate]:
    folder = tmp_path_factory.mktemp("estate")
    shutil.copytree(DEPLOY, folder / "deploy")
    config = folder / "kubeconfig"
    health, metrics = free_ports(2)
    command = [
        *(sys.executable, "-m", "router", "controller", "--all-namespaces"),
        *(f"--namespace={HOME}", f"--tls={folder / 'tls'}", f"--kubeconfig={config}"),
        *(f"--health=127.0.0.1:{health}", f"--metrics=127.0.0.1:{metrics}"),
    ]
    with (
        installed(control_plane, DEPLOY, "all-namespaces"),
        (folder / "controller.log").open("w") as log,
    ):
        token = kubectl(control_plane, "-n", HOME, "create", "token", CONTROLLER).strip()
        control_plane.write_kubeconfig(config, {"token": token})
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        yield Estate(control_plane, folder, folder / "deploy")
        process.terminate()
        assert process.wait(20) == 0


def test_labelled_namespace_gets_what_home_has_and_others_nothing(estate: Estate):
    estate.until_made(HOME)
    estate.namespace("team-a")
    estate.namespace("team-b")
    estate.label("team-a", "=true")
    estate.until_made("team-a")
    assert estate.made("team-b") == set()
    ours, theirs = (
        json.loads(estate.kubectl("-n", name, "get", "secret", TLS_SECRET, "-o=json"))["data"]
        for name in (HOME, "team-a")
    )
    assert ours["ca.crt"] != theirs["ca.crt"]  # nodes of the one get in nowhere at the other
    pod = yaml.safe_load(estate.kubectl("-n", "team-a", "get", "deployment", RUNTIME, "-o=yaml"))[
        "spec"
    ]["template"]["spec"]
    (node,) = [it for it in pod["containers"] if it["name"] == "mesh"]
    assert "--store-prefix=$(POD_NAMESPACE)" in node["args"]


def test_namespace_whose_label_is_taken_away_is_left_as_it_is(estate: Estate):
    estate.namespace("team-c")
    estate.label("team-c", "=true")
    estate.until_made("team-c")
    estate.label("team-c", "-")
    until(lambda: "namespace left" in estate.log(), estate.log)
    assert estate.made("team-c") == {RUNTIME, TLS_SECRET}
    estate.kubectl("-n", "team-c", "delete", "deployment", RUNTIME)
    estate.namespace("team-d")  # what is made here would have been made there
    estate.label("team-d", "=true")
    estate.until_made("team-d")
    assert estate.made("team-c") == {TLS_SECRET}


def test_labelled_namespace_without_rights_says_so_and_disturbs_no_other(estate: Estate):
    estate.kubectl("create", "namespace", "bare")
    estate.label("bare", "=true")
    until(lambda: " forbidden" in estate.log() and " namespace=bare" in estate.log(), estate.log)
    assert estate.log().count("certificates not kept") == 1
    estate.namespace("team-e")
    estate.label("team-e", "=true")
    estate.until_made("team-e")
    assert "Traceback" not in estate.log()
