"""Pods of the tests themselves, at the strictest Pod Security level."""

import json

from tests.support.kube_cluster import Cluster
from tests.support.kube_installation import UP_S
from tests.support.waiting import until

ENDED = ("Succeeded", "Failed")
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, image: str, script: str, port: int = 8080) -> str:
    container = {
        "name": "it",
        "image": image,
        "command": ["sh", "-c", script],
        "ports": [{"containerPort": port}],
        "securityContext": RESTRICTED,
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 0}
    metadata = {"name": name, "labels": {"app": name}}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def said_by(cluster: Cluster, namespace: str, image: str, script: str) -> str:
    """What a pod wrote until it ended well."""
    of = ("-n", namespace)
    phase = ("get", "pod/once", "-o=jsonpath={.status.phase}")
    cluster.kubectl(*of, "apply", "-f", "-", stdin=pod("once", image, script))
    try:
        until(
            lambda: cluster.kubectl(*of, *phase) in ENDED,
            lambda: cluster.kubectl(*of, "describe", "pod/once"),
            UP_S,
        )
        said = cluster.kubectl(*of, "logs", "once")
        assert cluster.kubectl(*of, *phase) == "Succeeded", said
    finally:
        cluster.kubectl(*of, "delete", "pod/once")
    return said
