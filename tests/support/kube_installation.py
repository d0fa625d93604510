"""An installation in a cluster, as a reader of docs/install.md has it and asks it."""

import base64
import itertools
import json
import re
from typing import Any

from tests.support.kube_cluster import Cluster
from tests.support.stand import ROOT
from tests.support.waiting import until

HOME = "wml-serving"
NAME = "example-mnist-predictor"
FILE = "deploy/example-predictors/example-mlserver-sklearn-mnist-predictor.yaml"
KEY = "wml-serving-example-models"
RUNTIME = "deployment/wml-serving-mlserver-1.x"
CONTROLLER = "deployment/wmlserving-controller"
ROUTER = "deployment/wml-serving-router"
LOADED = ("sklearn", "true", "Loaded", "-", "UpToDate")
INSTALL = (ROOT / "docs/install.md").read_text()
README = (ROOT / "README.md").read_text()
HOSTS = r"wml-serving-(?:etcd|s3)\b"
INFERENCE = "proto/kfs_inference_v2.proto"
UP_S, LOADED_S = 120, 90


class Namespace:
    """kubectl where the documentation has set the namespace."""

    def __init__(self, cluster: Cluster, name: str = HOME) -> None:
        self.cluster = cluster
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 150) -> str:
        return self.cluster.kubectl(
            f"--namespace={self.name}", *arguments, stdin=stdin, timeout_s=timeout_s
        )

    def shell(self, block: str, timeout_s: float = 150) -> str:
        """A block of the documentation."""
        environment = f"KUBECONFIG={self.cluster.kubeconfig}"
        return self.cluster.run("env", environment, "bash", "-ec", block, timeout_s=timeout_s)

    def row(self) -> list[str]:
        """TYPE to TRANSITION of the Predictor, as the table shows them; `-` for empty ones."""
        (row,) = [row for row in rows(self.kubectl("get", "predictors")) if row[0] == NAME]
        return row[1:6]

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

    def apply(self, kind: str, path: str, key: str = KEY) -> None:
        """The example's file with another model."""
        other = (ROOT / FILE).read_text().replace("name: sklearn", f"name: {kind}")
        other = other.replace("sklearn/mnist-svm.joblib", path).replace(KEY, key)
        self.kubectl("apply", "-f", "-", stdin=other)

    def secret(self, name: str) -> dict[str, str]:
        data = json.loads(self.kubectl("get", "secret", name, "-o=json"))["data"]
        return {key: base64.b64decode(text).decode() for key, text in data.items()}

    def key(self, name: str) -> dict[str, str]:
        """What a key of storage-config holds."""
        return dict(json.loads(self.secret("storage-config")[name]))

    def patch_key(self, name: str, key: dict[str, str]) -> None:
        patch = json.dumps({"stringData": {name: json.dumps(key)}})
        self.kubectl("patch", "secret", "storage-config", f"--patch={patch}")

    def address(self, service: str = "wml-serving") -> str:
        """The Service as the node reaches it, also without an API server."""
        return self.kubectl("get", "service", service, "-o=jsonpath={.spec.clusterIP}")

    def answer(self, host: str = "localhost", timeout_s: int = 60) -> dict[str, object]:
        """The README's request by grpcurl; from `localhost` there is a port-forward."""
        blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
        (block,) = [block for block in blocks if "grpcurl -plaintext -proto" in block]
        command = block.replace("grpcurl", str(ROOT / ".venv/bin/grpcurl"), 1)
        command = command.replace("localhost:8033", f"{host}:8033")
        return dict(json.loads(self.cluster.run("bash", "-ec", command, timeout_s=timeout_s)))

    def infer(self, host: str, asked: dict[str, Any], timeout_s: int = 60) -> dict[str, Any]:
        """Another request by grpcurl."""
        command = (
            *(ROOT / ".venv/bin/grpcurl", "-plaintext", "-proto", ROOT / INFERENCE),
            *("-import-path", "/", "-d", json.dumps(asked), f"{host}:8033"),
            "inference.GRPCInferenceService.ModelInfer",
        )
        return dict(json.loads(self.cluster.run(*command, timeout_s=timeout_s)))

    def pods(self, selector: str) -> dict[str, dict[str, Any]]:
        """By name, without those that are ending."""
        items = json.loads(self.kubectl("get", "pods", "-l", selector, "-o=json"))["items"]
        there = [item for item in items if "deletionTimestamp" not in item["metadata"]]
        return {item["metadata"]["name"]: item for item in there}

    def until_up(self, *workloads: str) -> None:
        for workload in workloads:
            try:
                self.kubectl("rollout", "status", workload, f"--timeout={UP_S}s")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.story()}") from error

    def story(self) -> str:
        """What a reader of a failure wants to know."""
        parts = [
            self.kubectl("get", "predictors,servingruntimes,deployments,statefulsets,pods"),
            self.kubectl("get", "predictors", "-o", "jsonpath={.items[*].status}"),
            self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-2000:],
            self.cluster.kubectl(f"--namespace={HOME}", "logs", CONTROLLER, "--tail=15"),
        ]
        return "\n".join(parts)


class Servers(Namespace):
    """The etcd and the S3 server of the quickstart, beside overlays that expect yours."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "servers")

    def start(self) -> None:
        self.cluster.kubectl("create", "namespace", self.name)
        self.kubectl("apply", "--server-side", "-k", "deploy/quickstart")

    def give(self, namespace: Namespace, *secrets: str) -> None:
        """Tells a namespace of them, by the Secrets that docs/install.md asks for."""
        for secret in secrets:
            texts = {
                key: re.sub(HOSTS, rf"\g<0>.{self.name}", text)
                for key, text in self.secret(secret).items()
            }
            told = [f"--from-literal={key}={text}" for key, text in texts.items()]
            namespace.kubectl("create", "secret", "generic", secret, *told)


def rows(table: str) -> list[list[str]]:
    """A table of kubectl, without its head; `-` for empty cells."""
    head, *lines = table.splitlines()
    columns = [match.start() for match in re.finditer(r"\S+", head)] + [None]
    return [[line[a:b].strip() or "-" for a, b in itertools.pairwise(columns)] for line in lines]


def in_overlay(block: str, overlay: str) -> str:
    """A block that says `quickstart`, for another overlay."""
    assert "overlays/quickstart" in block
    return block.replace("overlays/quickstart", f"overlays/{overlay}")


def install_block(*words: str) -> str:
    blocks = re.findall(r"^```sh.*?\n(.*?)^```", INSTALL, re.S | re.M)
    (found,) = [block for block in blocks if all(word in block for word in words)]
    return str(found)
