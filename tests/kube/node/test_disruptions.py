"""What an operator does to a running installation, and what users must not notice of it.

Each test finds the example Predictor Loaded, and leaves it so.
"""

from collections.abc import Iterator

import pytest

from tests.support.kube_cluster import Cluster
from tests.support.kube_installation import (
    CONTROLLER,
    FILE,
    LOADED,
    ROUTER,
    RUNTIME,
    UP_S,
    Namespace,
    install_block,
)
from tests.support.kube_load import Load
from tests.support.stand import ROOT
from tests.support.waiting import until

RUNTIME_PODS = "wmlserving.ai.ibm.com/runtime"
# A pod that goes waits for connections to age and for its last requests.
GONE_S = 180
# After a lease of 15 s, another takes over.
TAKEN_OVER_S = 60


@pytest.fixture(scope="module")
def running(cluster: Cluster) -> Iterator[Namespace]:
    """The quickstart with the example Predictor Loaded."""
    namespace = Namespace(cluster)
    namespace.shell(install_block("kubectl apply --server-side", "quickstart"))
    namespace.kubectl("apply", "-f", str(ROOT / FILE))
    namespace.kubectl("rollout", "status", CONTROLLER, f"--timeout={UP_S}s")
    namespace.until_row(*LOADED, deadline_s=UP_S)
    yield namespace
    namespace.shell(install_block("kubectl delete"))


def pods(namespace: Namespace, selector: str) -> set[str]:
    return set(namespace.kubectl("get", "pods", "-l", selector, "-o=name").split())


@pytest.mark.timeout(600)
def test_rolling_update_of_the_runtime_loses_no_request(running: Namespace):
    before = pods(running, RUNTIME_PODS)
    with Load(running) as load:
        running.kubectl("rollout", "restart", RUNTIME)
        running.kubectl("rollout", "status", RUNTIME, f"--timeout={UP_S}s")
        until(lambda: not before & pods(running, RUNTIME_PODS), running.story, deadline_s=GONE_S)
    assert not load.lost()
    assert load.asked > 100  # it was under load for as long as that took, six seconds or more
    running.until_row(*LOADED)


def holder(namespace: Namespace) -> str:
    lease = ("get", "lease", "wmlserving-controller", "-o=jsonpath={.spec.holderIdentity}")
    return namespace.kubectl(*lease)


@pytest.mark.timeout(600)
def test_of_two_controllers_one_leads_and_the_other_takes_over(running: Namespace):
    running.kubectl("scale", CONTROLLER, "--replicas=2")
    try:
        running.kubectl("rollout", "status", CONTROLLER, f"--timeout={UP_S}s")
        leader = holder(running)
        assert leader
        selector = "app.kubernetes.io/component=controller"
        (led,) = [pod for pod in pods(running, selector) if pod.removeprefix("pod/") in leader]
        running.kubectl("delete", led, "--force", "--grace-period=0")
        until(lambda: holder(running) not in ("", leader), running.story, deadline_s=TAKEN_OVER_S)
        running.change("sklearn/absent.joblib")
        running.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
        running.change("sklearn/mnist-svm.joblib")
        running.until_row(*LOADED)
    finally:
        running.kubectl("scale", CONTROLLER, "--replicas=1")


@pytest.mark.timeout(600)
def test_drain_gets_through_with_one_pod_of_each(running: Namespace):
    ours = "--pod-selector=app.kubernetes.io/name=wml-serving"
    options = ("--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={GONE_S}s")
    try:
        running.kubectl("drain", "node1", ours, *options, timeout_s=GONE_S + 10)
    finally:
        running.kubectl("uncordon", "node1")
    for workload in (CONTROLLER, ROUTER, RUNTIME):
        running.kubectl("rollout", "status", workload, f"--timeout={UP_S}s")
    # The row may be from before the drain, and the Service leads to the new pods a little later.
    until(lambda: is_answered(running), running.story, UP_S)
    running.until_row(*LOADED, deadline_s=UP_S)


def is_answered(namespace: Namespace) -> bool:
    try:
        return "outputs" in namespace.answer(namespace.address())
    except AssertionError:
        return False
