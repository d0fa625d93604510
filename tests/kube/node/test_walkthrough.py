"""The walk-through on a real node, with the shipped manifests and docs/install.md as they are.

Each test finds the example Predictor Loaded, and leaves it so.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

import pytest
import yaml

from mesh.ops.clock import wall_s
from tests.support.kube_cluster import Cluster
from tests.support.kube_control_plane import DELETED_S
from tests.support.kube_gate import Gate
from tests.support.kube_images import OURS
from tests.support.kube_installation import (
    CONTROLLER,
    FILE,
    KEY,
    LOADED,
    LOADED_S,
    NAME,
    ROUTER,
    RUNTIME,
    UP_S,
    Namespace,
    install_block,
    rows,
)
from tests.support.kube_pods import said_by
from tests.support.stand import MNIST, ROOT
from tests.support.waiting import until

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
TABLE = r"```text\n( *NAME +TYPE +AVAILABLE.*?)^ *```"
# A reader sets the namespace for all that follows; here, others use the same file.
AS_A_READER = 'cp "$KUBECONFIG" "$KUBECONFIG.reader"; export KUBECONFIG="$KUBECONFIG.reader"'
RUNTIME_POD = r"(?m)^wml-serving-mlserver-1\.x-\S+ +{}"
SEEN_S, KEY_S = 30, 2
# Longer than the steps in which nodes tell when they were used last, and than the idle time.
IN_USE_S = 16


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Namespace]:
    """As docs/install.md says; uninstalled the same way."""
    namespace = Namespace(cluster)
    namespace.shell(install_block("kubectl apply --server-side", "quickstart"))
    namespace.until_up(CONTROLLER, ROUTER, "deployment/wml-serving-s3")
    assert "servingruntime" in namespace.shell(install_block("get deployments,predictors"))
    yield namespace
    namespace.shell(install_block("kubectl delete"), timeout_s=DELETED_S)


@pytest.fixture(scope="module")
def loaded(installed: Namespace) -> Namespace:
    """The example Predictor, applied and Loaded; nothing runs before it."""
    assert installed.replicas() == 0, installed.story()
    block = install_block("kubectl config set-context")
    assert FILE in block
    shown = installed.shell(f"{AS_A_READER}\n{block}")
    assert NAME in shown.splitlines()[-1]
    until(lambda: re.search(RUNTIME_POD.format("0/3"), pods(installed)), installed.story, SEEN_S)
    installed.until_row(*LOADED)
    return installed


@contextmanager
def forwarding(namespace: Namespace, port: int) -> Iterator[None]:
    """The port of the Service on localhost."""
    forward = (f"--namespace={namespace.name}", "port-forward", "service/wml-serving", str(port))
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
    said = seen_keys(loaded, "patched")
    assert datetime.fromisoformat(said[-1]).timestamp() - patched_s < KEY_S
    loaded.kubectl("delete", "predictor", "patched")


def seen_keys(namespace: Namespace, name: str) -> list[str]:
    """When the pod took notice of changes of that storage key."""
    log = namespace.kubectl("logs", RUNTIME, "--container=mlserver-adapter", "--timestamps")
    said = [line.partition(" ")[::2] for line in log.splitlines() if "storage key changed" in line]
    return [time for time, event in said if json.loads(event)["key"] == name]


@pytest.fixture
def gate(loaded: Namespace) -> Iterator[Gate]:
    """Before the S3 server; the storage key `gated` leads there, and the pod knows it."""
    with Gate(loaded.cluster, f"http://{loaded.address('wml-serving-s3')}:8333") as gate:
        loaded.patch_key("gated", loaded.key(KEY) | {"endpoint_url": gate.endpoint_url})
        until(lambda: seen_keys(loaded, "gated"), loaded.story, SEEN_S)
        yield gate


def test_table_at_each_step_is_that_of_the_documentation(loaded: Namespace, gate: Gate):
    (table,) = re.findall(TABLE, (ROOT / "docs/kubernetes.md").read_text(), re.S | re.M)
    first, loaded_first, second, loaded_second, failed = [row[1:6] for row in rows(table)]
    loaded.kubectl("delete", "predictor", NAME)
    # Applied again before that is seen, it would be an update.
    until(lambda: is_unknown(loaded), loaded.story, SEEN_S)
    gate.hold("mnist")
    loaded.apply("sklearn", "sklearn/mnist-svm.joblib", "gated")
    gate.wait_for_held()
    loaded.until_row(*first)
    head, *_ = loaded.kubectl("get", "predictors").splitlines()
    assert head.split() == table.splitlines()[0].split()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(loaded.answer, loaded.address())
        gate.release()
        assert "outputs" in waiting.result()
    loaded.until_row(*loaded_first)
    gate.hold("mnist")
    loaded.apply("xgboost", "xgboost/mnist.json", "gated")
    gate.wait_for_held()
    loaded.until_row(*second)
    served = loaded.answer(loaded.address())["modelName"]
    gate.release()
    loaded.until_row(*loaded_second)
    assert loaded.answer(loaded.address())["modelName"] != served
    loaded.apply("xgboost", "xgboost/absent.json", "gated")
    loaded.until_row(*failed)
    loaded.apply("sklearn", "sklearn/mnist-svm.joblib")
    loaded.until_row(*LOADED)


def is_unknown(namespace: Namespace) -> bool:
    """Whether the mesh has no such Predictor any more."""
    try:
        namespace.answer(namespace.address())
    except AssertionError as error:
        return "NotFound" in str(error)
    return False


def test_runtime_pods_have_three_containers(loaded: Namespace):
    shown = pods(loaded)
    assert re.search(RUNTIME_POD.format("3/3 +Running"), shown), shown
    assert re.search(r"(?m)^wmlserving-controller-\S+ +1/1 +Running", shown), shown


def pods(namespace: Namespace) -> str:
    return namespace.kubectl("get", "pods", "--no-headers")


def test_client_in_a_pod_by_the_name_of_the_service(loaded: Namespace):
    script = f"python -c {shlex.quote(CLIENT)} {shlex.quote(json.dumps(MNIST))}"
    said = said_by(loaded.cluster, "wml-serving", OURS, script)
    assert said.split() == ["8", "8"]


def test_runtime_of_ones_own_runs_in_a_pod(loaded: Namespace):
    """The example's, with our image in place of the one that a reader makes of it."""
    example = ROOT / "deploy/example-runtime"
    loaded.kubectl("create", "configmap", "scale", f"--from-file={example / 'scale.py'}")
    runtime = yaml.safe_load((example / "scale.yaml").read_text())
    runtime["spec"] |= {
        "replicas": 1,
        "volumes": [{"name": "file", "configMap": {"name": "scale"}}],
    }
    (container,) = runtime["spec"]["containers"]
    mount = {"name": "file", "mountPath": "/scale.py", "subPath": "scale.py"}
    container |= {"image": OURS, "volumeMounts": [mount]}
    loaded.kubectl("apply", "-f", "-", stdin=json.dumps(runtime))
    loaded.kubectl("apply", "-f", str(example / "predictor.yaml"))
    state = ("get", "predictor", "thrice", "-o=jsonpath={.status.activeModelState}")
    until(lambda: loaded.kubectl(*state) == "Loaded", loaded.story, UP_S)
    numbers = {
        "name": "x",
        "datatype": "FP32",
        "shape": [2],
        "contents": {"fp32_contents": [1, 2.5]},
    }
    answer = loaded.infer(loaded.address(), {"model_name": "thrice", "inputs": [numbers]})
    assert answer["outputs"][0]["contents"] == {"fp32Contents": [3, 7.5]}
    loaded.kubectl("delete", "predictor", "thrice")
    loaded.kubectl("delete", "servingruntime", "scale")
    deployment = ("get", "deployment", "wml-serving-scale", "--ignore-not-found", "-o=name")
    until(lambda: not loaded.kubectl(*deployment), loaded.story, SEEN_S)
    loaded.kubectl("delete", "configmap", "scale")


def test_update_to_another_model_is_not_missed_by_a_request(forwarded: Namespace):
    old = f"{NAME}-725d74f061"
    forwarded.change("/sklearn/mnist-svm.joblib")
    answers = [forwarded.answer()]
    end_s = time.monotonic() + LOADED_S
    while answers[-1]["modelName"] == old:
        assert time.monotonic() < end_s, forwarded.story()
        answers.append(forwarded.answer())
    assert all("outputs" in answer for answer in answers)
    forwarded.until_row(*LOADED)
    forwarded.change("sklearn/mnist-svm.joblib")
    until(lambda: forwarded.answer()["modelName"] == old, forwarded.story, LOADED_S)
    forwarded.until_row(*LOADED)


def test_failed_update_keeps_the_active_model_and_recovers(forwarded: Namespace):
    forwarded.change("sklearn/absent.joblib")
    forwarded.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    assert forwarded.status()["lastFailureInfo"]["reason"] == "ModelLoadFailed"  # type: ignore[index]
    assert forwarded.answer()["modelName"] == f"{NAME}-725d74f061"
    events = forwarded.kubectl("get", "events", f"--field-selector=involvedObject.name={NAME}")
    assert "BlockedByFailedLoad" in events
    forwarded.change("sklearn/mnist-svm.joblib")
    forwarded.until_row(*LOADED)


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
    forwarded.until_row(*LOADED)
    after = forwarded.kubectl("get", "pods", "-l", "wmlserving.ai.ibm.com/runtime", "-o=name")
    assert after == before


def test_api_server_away_for_a_minute_serving_goes_on(loaded: Namespace):
    host = loaded.address()
    loaded.cluster.kill("kube-apiserver")
    try:
        end_s = time.monotonic() + 60
        answers = 0
        while time.monotonic() < end_s:
            assert "outputs" in loaded.answer(host)
            answers += 1
            time.sleep(1)
    finally:
        loaded.cluster.plane.start_api()
    assert answers > 10
    loaded.until_row(*LOADED, deadline_s=60)


def test_down_to_zero_after_grace_and_up_by_a_predictor(loaded: Namespace):
    loaded.kubectl("delete", "predictor", NAME)
    time.sleep(20)
    loaded.kubectl("apply", "-f", FILE)  # within the grace, which begins anew with the next end
    loaded.until_row(*LOADED)
    loaded.kubectl("delete", "predictor", NAME)
    started_s = time.monotonic()
    until(lambda: loaded.replicas() == 0, loaded.story, 120)
    assert time.monotonic() - started_s > 50, "it went within the grace of 60 s"
    host = loaded.address()
    loaded.kubectl("apply", "-f", FILE)
    assert "outputs" in loaded.answer(host, timeout_s=90), "a request waits for the pods"
    loaded.until_row(*LOADED)


@pytest.fixture
def idle_s(loaded: Namespace) -> Iterator[int]:
    """After so long without a request a runtime goes to zero; only while a test has this."""
    get = ("get", "configmap", "wml-serving-config", r"-o=jsonpath={.data.config\.yaml}")
    before = loaded.kubectl(*get)

    def configure(text: str) -> None:
        patch = json.dumps({"data": {"config.yaml": text}})
        loaded.kubectl("patch", "configmap", "wml-serving-config", f"--patch={patch}")

    configure(f"{before}scaleToZero: {{idleSeconds: 5}}\n")
    yield 5
    configure(before)


def test_runtime_in_use_stays_and_an_idle_one_goes_until_the_next_request(
    loaded: Namespace, idle_s: int
):
    host = loaded.address()
    end_s = time.monotonic() + IN_USE_S
    while time.monotonic() < end_s:
        assert "outputs" in loaded.answer(host)
        asked_s = time.monotonic()
        assert loaded.replicas() == 1, loaded.story()
    until(lambda: loaded.replicas() == 0, loaded.story, 60)
    assert time.monotonic() - asked_s > idle_s
    # Also the one that is ending: until the node's proxy knows, it may send a new client there.
    pods = ("get", "pods", "-l", "wmlserving.ai.ibm.com/runtime", "-o=name")
    until(lambda: not loaded.kubectl(*pods), loaded.story)
    loaded.until_row("sklearn", "true", "Pending", "-", "UpToDate")
    assert "outputs" in loaded.answer(host, timeout_s=90), "a request brings its pods back"
    loaded.until_row(*LOADED)
