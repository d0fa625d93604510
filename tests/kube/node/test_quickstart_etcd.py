"""The quickstart's etcd on a node: who gets in, also after its pod was replaced."""

from collections.abc import Iterator

import pytest

from tests.support.kube_cluster import Cluster
from tests.support.kube_control_plane import DELETED_S
from tests.support.kube_installation import FILE, LOADED, UP_S, Namespace, install_block
from tests.support.stand import ROOT

POD = "pod/wml-serving-etcd-0"
# From the first key to the last: a zero byte for each.
ALL = '{"key": "AA==", "range_end": "AA=="}'


@pytest.fixture(scope="module")
def loaded(cluster: Cluster) -> Iterator[Namespace]:
    namespace = Namespace(cluster)
    namespace.shell(install_block("kubectl apply --server-side", "quickstart"))
    namespace.kubectl("apply", "-f", str(ROOT / FILE))
    namespace.until_row(*LOADED, deadline_s=2 * UP_S)
    yield namespace
    namespace.shell(install_block("kubectl delete"), timeout_s=DELETED_S)


def refuses_strangers(namespace: Namespace) -> None:
    """Somebody without a password asks for all there is."""
    ip = namespace.kubectl("get", POD, "-o=jsonpath={.status.podIP}")
    command = ("curl", "-sS", "--fail-with-body", f"http://{ip}:2379/v3/kv/range", "--data", ALL)
    with pytest.raises(AssertionError, match="user name is empty"):
        namespace.cluster.run(*command)


def test_nobody_without_a_password_reads_anything_also_after_a_restart(loaded: Namespace):
    refuses_strangers(loaded)
    loaded.kubectl("delete", POD)
    loaded.kubectl("wait", "--for=create", POD, f"--timeout={UP_S}s")
    loaded.kubectl("wait", "--for=condition=Ready", POD, f"--timeout={UP_S}s")
    refuses_strangers(loaded)
    loaded.change("sklearn/absent.joblib")
    loaded.until_row("sklearn", "true", "Loaded", "Failed", "BlockedByFailedLoad")
    loaded.change("sklearn/mnist-svm.joblib")
    loaded.until_row(*LOADED)
