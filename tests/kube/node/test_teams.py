"""One controller for several namespaces on a real node, as docs/install.md has it: wml-serving and
team-a, each with its own pods. A test may take team-a away; the next one makes it again.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube_control_plane import DELETED_S
from tests.support.kube_images import OURS
from tests.support.kube_installation import (
    CONTROLLER,
    FILE,
    HOME,
    INSTALL,
    LOADED,
    NAME,
    ROUTER,
    UP_S,
    Namespace,
    Servers,
    in_overlay,
    install_block,
)
from tests.support.kube_load import Load
from tests.support.kube_pods import said_by
from tests.support.stand import ROOT

TEAM = "team-a"
SECRETS = ("model-serving-etcd", "storage-config")
TREES = ("xgboost", "true", "Loaded", "-", "UpToDate")
BLOCKED = ("xgboost", "true", "Loaded", "Failed", "BlockedByFailedLoad")
# Room for a pod of each on the node.
ONE_POD = json.dumps({"data": {"config.yaml": "podsPerRuntime: 1\n"}})
ENABLED = "wmlserving-enabled"
CONTROLLERS = "app.kubernetes.io/component=controller"
# In a pod with our image: what each Service makes of an empty image, which the models see
# differently.
CLIENT = """
import sys
import grpc
from google.protobuf import json_format
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs, kfs_inference_v2_pb2_grpc as kfs_grpc

name, *hosts = sys.argv[1:]
empty = {"name": "predict", "shape": [1, 64], "datatype": "FP32",
         "contents": {"fp32_contents": [0] * 64}}
request = json_format.ParseDict({"model_name": name, "inputs": [empty]}, kfs.ModelInferRequest())
for host in hosts:
    with grpc.insecure_channel(host + ":8033") as channel:
        answer = kfs_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
    print(answer.outputs[0].contents.int64_contents[0])
"""


class Teams:
    """`home` has the controller; `folder` is a checkout's, where overlays may be added."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.cluster = servers.cluster
        self.home = Namespace(self.cluster)
        self.team = Namespace(self.cluster, TEAM)
        self._servers = servers
        self._folder = folder

    def shell(self, block: str, timeout_s: float = 150) -> str:
        return self.home.shell(f"cd {self._folder}\n{block}", timeout_s)

    def install(self) -> None:
        shutil.copytree(ROOT / "deploy", self._folder / "deploy")
        block = install_block("kubectl apply --server-side", "quickstart")
        self.shell(in_overlay(block, "all-namespaces"))
        self._settle(self.home)
        self.home.until_up(CONTROLLER)

    def add_team(self) -> None:
        (overlay,) = re.findall(
            rf"^```yml\n([^`]*namespace: {TEAM}\n.*?)^```", INSTALL, re.S | re.M
        )
        place = self._folder / "deploy/overlays" / TEAM
        place.mkdir(exist_ok=True)
        (place / "kustomization.yaml").write_text(overlay)
        self.shell(install_block("kubectl create namespace"))
        self._settle(self.team)

    def _settle(self, namespace: Namespace) -> None:
        self._servers.give(namespace, *SECRETS)
        namespace.kubectl("patch", "configmap", "wml-serving-config", f"--patch={ONE_POD}")

    def remove(self) -> None:
        self.cluster.kubectl("delete", "namespace", TEAM, "--ignore-not-found", timeout_s=DELETED_S)

    def uninstall(self) -> None:
        block = install_block("kubectl delete", "quickstart")
        self.shell(in_overlay(block, "all-namespaces"), timeout_s=DELETED_S)


@pytest.fixture(scope="module")
def installed(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Teams]:
    teams = Teams(servers, tmp_path_factory.mktemp("teams"))
    teams.install()
    teams.home.until_up(ROUTER)
    servers.until_up("deployment/wml-serving-s3")
    teams.home.kubectl("apply", "-f", str(ROOT / FILE))
    teams.home.until_row(*LOADED, deadline_s=UP_S)
    yield teams
    teams.remove()
    teams.uninstall()


@pytest.fixture
def teams(installed: Teams) -> Teams:
    """In both namespaces there is a Predictor of the same name, with another model in each."""
    if not installed.cluster.kubectl("get", "namespace", TEAM, "--ignore-not-found"):
        installed.add_team()
    installed.team.apply("xgboost", "xgboost/mnist.json")
    installed.team.until_row(*TREES, deadline_s=UP_S)
    return installed


def test_same_name_in_two_namespaces_is_answered_by_each_service_with_its_model(teams: Teams):
    hosts = ("wml-serving", f"wml-serving.{HOME}", f"wml-serving.{TEAM}")
    script = f"python -c {shlex.quote(CLIENT)} {NAME} {' '.join(hosts)}"
    assert said_by(teams.cluster, TEAM, OURS, script).split() == ["0", "9", "0"]
    assert said_by(teams.cluster, HOME, OURS, script).split() == ["9", "9", "0"]


def test_namespace_without_its_label_serves_on_as_it_is_and_disturbs_no_other(teams: Teams):
    before = teams.team.answer(teams.team.address())["modelName"]
    teams.cluster.kubectl("label", "namespace", TEAM, f"{ENABLED}-")
    teams.team.apply("xgboost", "xgboost/absent.json")
    teams.home.change("sklearn/absent.joblib")  # what is seen here would have been seen there
    teams.home.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    teams.home.change("sklearn/mnist-svm.joblib")
    teams.home.until_row(*LOADED)
    assert teams.team.row() == list(TREES)
    assert teams.team.answer(teams.team.address())["modelName"] == before
    teams.cluster.kubectl("label", "namespace", TEAM, f"{ENABLED}=true")
    teams.team.until_row(*BLOCKED)


def test_namespace_that_is_removed_disturbs_no_other(teams: Teams):
    controllers = teams.home.pods(CONTROLLERS)
    with Load(teams.home) as load:
        teams.remove()
    assert not load.lost()
    teams.home.change("sklearn/absent.joblib")
    teams.home.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    teams.home.change("sklearn/mnist-svm.joblib")
    teams.home.until_row(*LOADED)
    ((name, pod),) = teams.home.pods(CONTROLLERS).items()
    assert [name] == list(controllers)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
