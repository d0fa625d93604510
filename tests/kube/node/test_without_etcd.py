"""deploy/overlays/without-etcd on a real node: one router keeps the store in its memory, and goes.

What must hold then is in docs/without-etcd.md. Each test finds the example Predictor Loaded, and
leaves it so.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kube_control_plane import DELETED_S
from tests.support.kube_installation import (
    CONTROLLER,
    FILE,
    LOADED,
    LOADED_S,
    NAME,
    UP_S,
    Namespace,
    Servers,
    in_overlay,
    install_block,
)
from tests.support.kube_load import Load
from tests.support.stand import ROOT
from tests.support.waiting import until

STORE = "statefulset/wml-serving-router"
ROUTERS = "app.kubernetes.io/component=router"
RUNTIMES = "wmlserving.ai.ibm.com/runtime"
OTHER = "deploy/example-predictors/example-mlserver-xgboost-mnist-predictor.yaml"
# Beside two runtime pods and a router: one of them is to the router but for once in a hundred.
CONNECTIONS = 12
# A client's connection grows 33 s old, and is waited for.
REPLACED_S = 120


@pytest.fixture(scope="module")
def small(servers: Servers) -> Iterator[Namespace]:
    """As docs/install.md says, with the example Predictor Loaded."""
    namespace = Namespace(servers.cluster)
    install = install_block("kubectl apply --server-side", "quickstart")
    namespace.shell(in_overlay(install, "without-etcd"))
    servers.give(namespace, "storage-config")
    namespace.until_up(CONTROLLER, STORE)
    servers.until_up("deployment/wml-serving-s3")
    namespace.kubectl("apply", "-f", str(ROOT / FILE))
    namespace.until_row(*LOADED, deadline_s=UP_S)
    yield namespace
    uninstall = install_block("kubectl delete", "quickstart")
    namespace.shell(in_overlay(uninstall, "without-etcd"), timeout_s=DELETED_S)


def is_ready(pod: dict[str, Any]) -> bool:
    conditions = {it["type"]: it["status"] for it in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def delete_store(small: Namespace, *options: str) -> str:
    """Deletes its pod; the uid of it."""
    ((name, pod),) = small.pods(ROUTERS).items()
    small.kubectl("delete", "pod", name, "--wait=false", *options)
    return str(pod["metadata"]["uid"])


def next_store(small: Namespace, before: str) -> str:
    """The address of the pod after that one, once it is ready; there are never two."""

    def address() -> str:
        stores = small.kubectl("get", "pods", "-l", ROUTERS, "-o=name").split()
        assert len(stores) < 2, small.story()
        there = [it for it in small.pods(ROUTERS).values() if it["metadata"]["uid"] != before]
        return next((it["status"]["podIP"] for it in there if is_ready(it)), "")

    until(address, small.story, REPLACED_S)
    return address()


def test_predictor_to_8_by_each_pod(small: Namespace):
    nodes = small.pods("wmlserving.ai.ibm.com/service=wml-serving")
    assert len(nodes) == 3  # the router, and two of the runtime
    for pod in nodes.values():
        outputs = small.answer(pod["status"]["podIP"])["outputs"]
        assert outputs[0]["contents"] == {"int64Contents": ["8"]}  # type: ignore[index]


def test_killed_store_is_told_everything_again_and_loaded_models_answer_meanwhile(
    small: Namespace,
):
    runtimes = small.pods(RUNTIMES)
    host = next(iter(runtimes.values()))["status"]["podIP"]
    with Load(small, host) as load:
        killed = delete_store(small, "--force", "--grace-period=0")
        small.kubectl("apply", "-f", OTHER)
        router = next_store(small, killed)
    assert not load.lost()
    assert load.asked > 100
    assert small.answer(router)["modelName"] == f"{NAME}-725d74f061"
    small.until_row(*LOADED)
    loaded = "--for=jsonpath={.status.activeModelState}=Loaded"
    small.kubectl("wait", loaded, "-f", OTHER, f"--timeout={LOADED_S}s")
    assert small.pods(RUNTIMES).keys() == runtimes.keys()
    small.kubectl("delete", "-f", OTHER)
    small.change("sklearn/absent.joblib")
    small.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    small.change("sklearn/mnist-svm.joblib")
    small.until_row(*LOADED)


def test_store_that_ends_has_no_second_one_beside_it(small: Namespace):
    """A new one is empty, and would say that it knows no Predictor. Clients hold up the old one."""
    with Load(small, connections=CONNECTIONS) as load:
        next_store(small, delete_store(small))
    assert not [it for it in load.failures if "NOT_FOUND" in it], load.failures
    assert load.asked > 100
    small.until_row(*LOADED)
