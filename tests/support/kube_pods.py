"""Pods of the tests themselves, at the strictest Pod Security level."""

import json

from tests.support.kube_cluster import Cluster

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
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=pod("once", image, script))
    ended = "--for=jsonpath={.status.phase}=Succeeded"
    try:
        cluster.kubectl("-n", namespace, "wait", ended, "pod/once", "--timeout=30s")
    finally:
        said = cluster.kubectl("-n", namespace, "logs", "once")
        cluster.kubectl("-n", namespace, "delete", "pod/once", "--wait=false")
        print(said)
    return said
