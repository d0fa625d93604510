"""The lab itself: a node, our image, names, port-forward; and that nothing of it stays behind."""

import re
from pathlib import Path

import pytest

from tests.support.kube_cluster import Cluster
from tests.support.kube_control_plane import ControlPlane, kubectl
from tests.support.kube_images import MLSERVER, OURS
from tests.support.kube_pods import pod, said_by
from tests.support.waiting import until

SERVE = "python -m http.server 8080 --directory /venv"


def test_api_without_a_node_answers(control_plane: ControlPlane):
    assert "default" in kubectl(control_plane, "get", "namespaces", "-o", "name")


def test_node_is_ready(cluster: Cluster):
    assert re.search(r"node1 +Ready ", cluster.kubectl("get", "nodes"))


def test_our_image_runs_restricted(cluster: Cluster, namespace: str):
    assert "0.1.0" in said_by(cluster, namespace, OURS, "wml-serving --version")


def test_mlserver_image_loads_its_libraries(cluster: Cluster, namespace: str):
    script = "python -c 'import lightgbm, xgboost, sklearn, mlserver; print(mlserver.__version__)'"
    assert "1.7.1" in said_by(cluster, namespace, MLSERVER, script)


@pytest.mark.parametrize("name", ["kubernetes.default", "web"])
def test_names_resolve_inside_a_pod(cluster: Cluster, namespace: str, name: str):
    cluster.kubectl("-n", namespace, "create", "service", "clusterip", "web", "--tcp=80:8080")
    script = f"python -c 'import socket; print(socket.gethostbyname(\"{name}\"))'"
    assert said_by(cluster, namespace, OURS, script).startswith("10.0.0.")


def test_service_is_reached_by_port_forward(cluster: Cluster, namespace: str):
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=pod("web", OURS, SERVE))
    cluster.kubectl("-n", namespace, "create", "service", "clusterip", "web", "--tcp=80:8080")
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/web", "--timeout=30s")
    forward = ("--kubeconfig", cluster.kubeconfig, "-n", namespace, "port-forward", "service/web")
    with cluster.process("kubectl", *forward, "18080:80") as process:
        assert process.stdout is not None
        assert "Forwarding from" in process.stdout.readline()
        assert "home = /usr/local/bin" in cluster.run(
            "curl", "--silent", "--fail", "http://127.0.0.1:18080/pyvenv.cfg"
        )


def test_two_clusters_side_by_side_and_one_killed_leaves_nothing(cluster: Cluster):
    other = Cluster(f"{cluster.name}-other")
    other.up()
    pid = other.pid
    other.down()
    until(lambda: not _is_alive(pid), lambda: f"{pid} lives on")
    assert not other.folder.exists()
    assert not other.groups()
    assert re.search(r"node1 +Ready ", cluster.kubectl("get", "nodes"))


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
