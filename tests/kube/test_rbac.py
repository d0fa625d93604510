"""What each ServiceAccount may do, asked of the real authorizer with its own token."""

import json
import subprocess
from collections.abc import Callable

import pytest

from mesh.controller.config import DEFAULTS
from mesh.controller.names import CONTROLLER, ROUTER, RUNTIME_ACCOUNT
from mesh.controller.workloads import Owner, Runtime, workloads
from mesh.wire.runtime_manifest import parse_runtime
from tests.controller.runtimes import PLACE, shipped
from tests.support.kube_control_plane import ControlPlane, kubectl

NAMESPACE = "wml-serving"
# A Secret, a subresource or another namespace that somebody who got in would want.
COMMON_REFUSALS = (
    "get secrets",
    "list secrets",
    "get secret/model-serving-etcd",
    "create pods",
    "create pods --subresource=exec",
    "create serviceaccounts --subresource=token",
    "create rolebindings",
    "escalate roles",
    "impersonate users",
    "get nodes",
)
GRANTED = {
    CONTROLLER: (
        "list predictors.wmlserving.ai.ibm.com",
        "patch predictors.wmlserving.ai.ibm.com --subresource=status",
        "watch servingruntimes.wmlserving.ai.ibm.com",
        "patch servingruntimes.wmlserving.ai.ibm.com --subresource=status",
        "patch deployments.apps",
        "delete deployments.apps",
        "patch poddisruptionbudgets.policy",
        "patch horizontalpodautoscalers.autoscaling",
        "patch configmaps",
        "create secrets",
        "get secret/wml-serving-internal-tls",
        "patch secret/wml-serving-internal-ca",
        "create events",
        "patch events",
        "create poddisruptionbudgets.policy",
        "delete horizontalpodautoscalers.autoscaling",
        "get configmaps",
        "get leases.coordination.k8s.io/wmlserving-controller",
        "list clusterservingruntimes.wmlserving.ai.ibm.com",
        "create leases.coordination.k8s.io",
        "update leases.coordination.k8s.io/wmlserving-controller",
    ),
    RUNTIME_ACCOUNT: ("list secret/storage-config", "watch secret/storage-config"),
    ROUTER: (),
}
REFUSED = {
    CONTROLLER: (
        "patch predictors.wmlserving.ai.ibm.com",
        "delete predictors.wmlserving.ai.ibm.com",
        "patch servingruntimes.wmlserving.ai.ibm.com",
        "get secret/storage-config",
        "update leases.coordination.k8s.io/another",
        "patch statefulsets.apps",
        # What it has no use for.
        "get predictors.wmlserving.ai.ibm.com",
        "get predictors.wmlserving.ai.ibm.com --subresource=status",
        "get poddisruptionbudgets.policy",
        "list horizontalpodautoscalers.autoscaling",
        "create events.events.k8s.io",
        "list events",
        "patch leases.coordination.k8s.io/wmlserving-controller",
        "list namespaces",
    ),
    RUNTIME_ACCOUNT: (
        "get secret/storage-config",
        "get secret/wml-serving-internal-ca",
        "patch secret/storage-config",
        "list predictors.wmlserving.ai.ibm.com",
        "get configmaps",
    ),
    ROUTER: ("get secret/storage-config", "list predictors.wmlserving.ai.ibm.com"),
}

As = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def as_account(plane: ControlPlane) -> Callable[[str], As]:
    """kubectl as a ServiceAccount, by a token of its own, whatever comes of it."""

    def enter(account: str) -> As:
        token = kubectl(plane, "--namespace", NAMESPACE, "create", "token", account).strip()
        path = plane.folder / f"{account}.kubeconfig"
        plane.write_kubeconfig(path, {"token": token})

        def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
            command = ["kubectl", "--kubeconfig", str(path), "--namespace", NAMESPACE, *arguments]
            return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)

        who = run("auth", "whoami", "-o=jsonpath={.status.userInfo.username}")
        assert who.stdout == f"system:serviceaccount:{NAMESPACE}:{account}", who.stderr
        return run

    return enter


def answers(run: As, questions: tuple[str, ...]) -> dict[str, str]:
    return {
        question: run("auth", "can-i", *question.split()).stdout.strip() for question in questions
    }


@pytest.mark.parametrize("account", GRANTED)
def test_account_may_do_its_work_and_no_more(as_account: Callable[[str], As], account: str):
    run = as_account(account)
    assert answers(run, GRANTED[account]) == dict.fromkeys(GRANTED[account], "yes")
    refused = (*COMMON_REFUSALS, *REFUSED[account])
    assert answers(run, refused) == dict.fromkeys(refused, "no")


def test_nobody_has_rights_in_another_namespace(as_account: Callable[[str], As]):
    run = as_account(CONTROLLER)
    for what in ("deployments.apps", "predictors.wmlserving.ai.ibm.com", "configmaps"):
        asked = run("auth", "can-i", "list", what, "--namespace=default")
        assert asked.stdout.strip() == "no", what


def test_controller_can_apply_all_that_a_runtime_is_made_of(
    plane: ControlPlane, as_account: Callable[[str], As]
):
    document = shipped()
    document["metadata"]["annotations"] = {
        "wmlserving.ai.ibm.com/autoscalerClass": "hpa",
    }
    name = document["metadata"]["name"]
    uid = kubectl(
        plane, "-n", NAMESPACE, "get", "servingruntime", name, "-o=jsonpath={.metadata.uid}"
    )
    owner = Owner(document["apiVersion"], document["kind"], name, uid)
    runtime = Runtime(parse_runtime(document), NAMESPACE, owner)
    items = workloads(runtime, DEFAULTS, PLACE, is_up=True)
    run = as_account(CONTROLLER)
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    apply = (
        "apply",
        "--server-side",
        f"--field-manager={CONTROLLER}",
        "--validate=strict",
        "-f",
        "-",
    )
    done = run(*apply, stdin=listed)
    assert done.returncode == 0, done.stderr
    # The dot in a runtime's name is warned of; an offence against the strict level is not there.
    assert "PodSecurity" not in done.stderr, done.stderr
    kinds = {item["kind"] for item in items}
    assert done.stdout.count("serverside-applied") == len(kinds)
    assert "HorizontalPodAutoscaler" in kinds
    # No field is fought for: the same again changes nothing.
    version = ("get", f"deployment/wml-serving-{name}", "-o=jsonpath={.metadata.generation}")
    before = run(*version).stdout
    assert run(*apply, stdin=listed).returncode == 0
    assert run(*version).stdout == before != ""
