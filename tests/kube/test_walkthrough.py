"""The walk-through on a real node, with the shipped manifests and docs/install.md as they are.

Each test finds the example Predictor Loaded, and leaves it so.
"""

import base64
import itertools
import json
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from mesh.ops.clock import wall_s
from tests.support.kube_cluster import Cluster
from tests.support.kube_control_plane import DELETED_S
from tests.support.kube_images import OURS
from tests.support.kube_pods import said_by
from tests.support.stand import MNIST, ROOT
from tests.support.waiting import until

NAME = "example-mnist-predictor"
FILE = "deploy/example-predictors/example-mlserver-sklearn-mnist-predictor.yaml"
INSTALL = (ROOT / "docs/install.md").read_text()
README = (ROOT / "README.md").read_text()
KEY = "wml-serving-example-models"
RUNTIME = "deployment/wml-serving-mlserver-1.x"
# In a pod with our image: the digit by gRPC, and by REST.
CLIENT = """
import json, sys, urllib.request
import grpc
from google.protobuf import json_format
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs, kfs_inference_v2_pb2_grpc as kfs_grpc

asked = json.loads(sys.argv[1])
with grpc.insecure_channel("wml-serving:8033") as channel:
    request = json_format.ParseDict(asked, kfs.ModelInferRequest())
    answer = kfs_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=60)
print(answer.outputs[0].contents.int64_contents[0])
(tensor,) = asked["inputs"]
tensor["data"] = tensor.pop("contents")["fp32_contents"]
url = f"http://wml-serving:8008/v2/models/{asked['model_name']}/infer"
with urllib.request.urlopen(url, json.dumps({"inputs": [tensor]}).encode(), 60) as answer:
    print(json.load(answer)["outputs"][0]["data"][0])
"""
UP_S, LOADED_S, SEEN_S, KEY_S = 120, 90, 30, 2


class Namespace:
    """kubectl where the documentation has set the namespace."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 150) -> str:
        return self.cluster.kubectl(
            "--namespace=wml-serving", *arguments, stdin=stdin, timeout_s=timeout_s
        )

    def shell(self, block: str, timeout_s: float = 150) -> str:
        """A block of the documentation."""
        environment = f"KUBECONFIG={self.cluster.kubeconfig}"
        return self.cluster.run("env", environment, "bash", "-ec", block, timeout_s=timeout_s)

    def row(self) -> list[str]:
        """TYPE to TRANSITION of the Predictor, as the table shows them; `-` for empty ones."""
        head, *rows = self.kubectl("get", "predictors").splitlines()
        columns = [match.start() for match in re.finditer(r"\S+", head)] + [None]
        (row,) = [row for row in rows if row.startswith(f"{NAME} ")]
        cells = [row[a:b].strip() or "-" for a, b in itertools.pairwise(columns)]
        return cells[1:6]

    def until_row(self, *cells: str, deadline_s: float = LOADED_S) -> None:
        until(lambda: self.row() == list(cells), self.story, deadline_s)

    def replicas(self) -> int:
        """Of the runtime's Deployment, as it is told."""
        told = self.kubectl("get", RUNTIME, "--ignore-not-found", "-o=jsonpath={.spec.replicas}")
        return int(told or "0")

    def status(self) -> dict[str, object]:
        got = json.loads(self.kubectl("get", "predictor", NAME, "-o=json"))
        return dict(got["status"])

    def change(self, path: str) -> None:
        patch = json.dumps({"spec": {"path": path}})
        self.kubectl("patch", "predictor", NAME, "--type=merge", f"--patch={patch}")

    def key(self, name: str) -> dict[str, str]:
        """What a key of storage-config holds."""
        secret = json.loads(self.kubectl("get", "secret", "storage-config", "-o=json"))
        return dict(json.loads(base64.b64decode(secret["data"][name])))

    def patch_key(self, name: str, key: dict[str, str]) -> None:
        patch = json.dumps({"stringData": {name: json.dumps(key)}})
        self.kubectl("patch", "secret", "storage-config", f"--patch={patch}")

    def address(self) -> str:
        """The Service as the node reaches it, also without an API server."""
        return self.kubectl("get", "service", "wml-serving", "-o=jsonpath={.spec.clusterIP}")

    def answer(self, host: str = "localhost", timeout_s: int = 60) -> dict[str, object]:
        """The README's request by grpcurl; from `localhost` there is a port-forward."""
        blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
        (block,) = [block for block in blocks if "grpcurl -plaintext -proto" in block]
        command = block.replace("grpcurl", str(ROOT / ".venv/bin/grpcurl"), 1)
        command = command.replace("localhost:8033", f"{host}:8033")
        return dict(json.loads(self.cluster.run("bash", "-ec", command, timeout_s=timeout_s)))

    def story(self) -> str:
        """What a reader of a failure wants to know."""
        parts = [
            self.kubectl("get", "predictors,servingruntimes,deployments,pods"),
            self.kubectl("get", "predictors", "-o", "jsonpath={.items[*].status}"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-2000:],
            self.kubectl("logs", "deployment/wmlserving-controller", "--tail=15"),
        ]
        return "\n".join(parts)


def install_block(*words: str) -> str:
    blocks = re.findall(r"^```sh.*?\n(.*?)^```", INSTALL, re.S | re.M)
    (found,) = [block for block in blocks if all(word in block for word in words)]
    return str(found)


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Namespace]:
    """As docs/install.md says; uninstalled the same way."""
    namespace = Namespace(cluster)
    namespace.shell(install_block("kubectl apply --server-side", "quickstart"))
    for deployment in ("wmlserving-controller", "wml-serving-router", "wml-serving-s3"):
        ready = ("rollout", "status", f"deployment/{deployment}", f"--timeout={UP_S}s")
        try:
            namespace.kubectl(*ready)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{namespace.story()}") from error
    yield namespace
    namespace.shell(install_block("kubectl delete"), timeout_s=DELETED_S)


@pytest.fixture(scope="module")
def loaded(installed: Namespace) -> Namespace:
    """The example Predictor, applied and Loaded; nothing runs before it."""
    assert installed.replicas() == 0, installed.story()
    installed.kubectl("apply", "-f", str(ROOT / FILE))
    installed.until_row("sklearn", "true", "Loaded", "-", "UpToDate")
    return installed


@contextmanager
def forwarding(namespace: Namespace, port: int) -> Iterator[None]:
    """The port of the Service on localhost."""
    forward = ("--namespace=wml-serving", "port-forward", "service/wml-serving", str(port))
    kubeconfig = ("--kubeconfig", namespace.cluster.kubeconfig)
    with namespace.cluster.process("kubectl", *kubeconfig, *forward) as process:
        assert process.stdout is not None
        assert "Forwarding from" in process.stdout.readline()
        yield


@pytest.fixture
def forwarded(loaded: Namespace) -> Iterator[Namespace]:
    with forwarding(loaded, 8033):
        yield loaded


def test_diff_after_apply_is_empty(installed: Namespace):
    assert installed.kubectl("diff", "--server-side", "-k", "deploy/overlays/quickstart") == ""


def test_predictor_to_8(forwarded: Namespace):
    endpoint = forwarded.kubectl("get", "predictor", NAME, "-o=jsonpath={.status.grpcEndpoint}")
    assert endpoint == "grpc://wml-serving:8033"
    outputs = forwarded.answer()["outputs"]
    assert outputs[0]["contents"] == {"int64Contents": ["8"]}  # type: ignore[index]


def test_rest_by_port_forward(loaded: Namespace):
    (tensor,) = MNIST["inputs"]
    asked = {key: value for key, value in tensor.items() if key != "contents"}
    body = json.dumps({"inputs": [asked | {"data": tensor["contents"]["fp32_contents"]}]})
    url = f"http://localhost:8008/v2/models/{NAME}/infer"
    with forwarding(loaded, 8008):
        said = loaded.cluster.run("curl", "-sS", "--fail-with-body", url, "--data", body)
    assert json.loads(said)["outputs"][0]["data"] == [8]


def test_key_that_is_patched_is_used_by_the_pod_within_two_seconds(loaded: Namespace):
    """A key of its own: those that are shipped belong to the manifests."""
    good = loaded.key(KEY)
    another = (ROOT / FILE).read_text().replace(NAME, "patched").replace(KEY, "patched")
    loaded.patch_key("patched", good | {"secret_access_key": "not-the-one"})
    loaded.kubectl("apply", "-f", "-", stdin=another)
    state = ("get", "predictor", "patched", "-o=jsonpath={.status.activeModelState}")
    until(lambda: loaded.kubectl(*state) == "Failed", loaded.story, SEEN_S)
    loaded.patch_key("patched", good)
    patched_s = wall_s()
    until(lambda: loaded.kubectl(*state) == "Loaded", loaded.story, SEEN_S)
    log = loaded.kubectl("logs", RUNTIME, "--container=mlserver-adapter", "--timestamps")
    said = [line.split()[0] for line in log.splitlines() if "storage key changed" in line]
    assert datetime.fromisoformat(said[-1]).timestamp() - patched_s < KEY_S
    loaded.kubectl("delete", "predictor", "patched")


def test_runtime_pods_have_three_containers(loaded: Namespace):
    pods = loaded.kubectl("get", "pods", "--no-headers")
    assert re.search(r"^wml-serving-mlserver-1\.x-\S+ +3/3 +Running", pods, re.M), pods
    assert re.search(r"^wmlserving-controller-\S+ +1/1 +Running", pods, re.M), pods


def test_client_in_a_pod_by_the_name_of_the_service(loaded: Namespace):
    script = f"python -c {shlex.quote(CLIENT)} {shlex.quote(json.dumps(MNIST))}"
    said = said_by(loaded.cluster, "wml-serving", OURS, script)
    assert said.split() == ["8", "8"]


def test_update_to_another_model_is_not_missed_by_a_request(forwarded: Namespace):
    old = f"{NAME}-725d74f061"
    forwarded.change("/sklearn/mnist-svm.joblib")
    answers = [forwarded.answer()]
    end_s = time.monotonic() + LOADED_S
    while answers[-1]["modelName"] == old:
        assert time.monotonic() < end_s, forwarded.story()
        answers.append(forwarded.answer())
    assert all("outputs" in answer for answer in answers)
    forwarded.until_row("sklearn", "true", "Loaded", "-", "UpToDate")
    forwarded.change("sklearn/mnist-svm.joblib")
    until(lambda: forwarded.answer()["modelName"] == old, forwarded.story, LOADED_S)
    forwarded.until_row("sklearn", "true", "Loaded", "-", "UpToDate")


def test_failed_update_keeps_the_active_model_and_recovers(forwarded: Namespace):
    forwarded.change("sklearn/absent.joblib")
    forwarded.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    assert forwarded.status()["lastFailureInfo"]["reason"] == "ModelLoadFailed"  # type: ignore[index]
    assert forwarded.answer()["modelName"] == f"{NAME}-725d74f061"
    events = forwarded.kubectl("get", "events", f"--field-selector=involvedObject.name={NAME}")
    assert "BlockedByFailedLoad" in events
    forwarded.change("sklearn/mnist-svm.joblib")
    forwarded.until_row("sklearn", "true", "Loaded", "-", "UpToDate")


def test_controller_killed_converges(forwarded: Namespace):
    before = forwarded.kubectl("get", "pods", "-l", "wmlserving.ai.ibm.com/runtime", "-o=name")
    forwarded.kubectl(
        *(
            "delete",
            "pod",
            "-l",
            "app.kubernetes.io/component=controller",
            "--force",
            "--grace-period=0",
        )
    )
    assert "outputs" in forwarded.answer()
    # The Deployment's own status may be from before the kill.
    controller = ("get", "pods", "-l", "app.kubernetes.io/component=controller", "--no-headers")
    until(lambda: " 1/1 " in forwarded.kubectl(*controller), forwarded.story, UP_S)
    forwarded.until_row("sklearn", "true", "Loaded", "-", "UpToDate")
    after = forwarded.kubectl("get", "pods", "-l", "wmlserving.ai.ibm.com/runtime", "-o=name")
    assert after == before


def test_api_server_away_serving_goes_on(loaded: Namespace, is_long: bool):
    host = loaded.address()
    loaded.cluster.kill("kube-apiserver")
    try:
        end_s = time.monotonic() + (60 if is_long else 10)
        answers = 0
        while time.monotonic() < end_s:
            assert "outputs" in loaded.answer(host)
            answers += 1
    finally:
        loaded.cluster.plane.start_api()
    assert answers > 3
    loaded.until_row("sklearn", "true", "Loaded", "-", "UpToDate", deadline_s=60)


def test_down_to_zero_after_grace_and_up_by_a_predictor(loaded: Namespace):
    loaded.kubectl("delete", "predictor", NAME)
    started_s = time.monotonic()
    until(lambda: loaded.replicas() == 0, loaded.story, 120)
    assert time.monotonic() - started_s > 50, "it went within the grace of 60 s"
    host = loaded.address()
    loaded.kubectl("apply", "-f", FILE)
    assert "outputs" in loaded.answer(host, timeout_s=90), "a request waits for the pods"
    loaded.until_row("sklearn", "true", "Loaded", "-", "UpToDate")
