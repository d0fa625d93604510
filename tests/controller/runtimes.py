"""ServingRuntimes for the controller's tests, and what is made of them."""

from pathlib import Path
from typing import Any

import yaml

from mesh.controller.pods import Installation
from mesh.controller.workloads import Owner, Runtime
from mesh.wire.runtime_manifest import parse_runtime

DEPLOY = Path("deploy")
PLACE = Installation("wml-serving/wml-serving:0.1.0")
OWNER = Owner("wmlserving.ai.ibm.com/v1", "ServingRuntime", "mlserver-1.x", "1-2-3")


def shipped() -> dict[str, Any]:
    """The document of deploy/runtimes, to be changed."""
    document: dict[str, Any] = yaml.safe_load((DEPLOY / "runtimes/mlserver-1.x.yaml").read_text())
    return document


def shipped_with(adapter: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """The same with other fields in its spec, and in its `builtInAdapter`."""
    document = shipped()
    document["spec"].update(fields)
    document["spec"]["builtInAdapter"].update(adapter or {})
    return document


def custom(**fields: Any) -> dict[str, Any]:
    """A runtime with an SPI server of its own."""
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "ServingRuntime",
        "metadata": {"name": "own"},
        "spec": {
            "supportedModelTypes": [{"name": "thing"}],
            "multiModel": True,
            "grpcEndpoint": "port:8085",
            "storageHelper": {"disabled": True},
            "containers": [{"name": "server", "image": "example.com/server:1"}],
            **fields,
        },
    }


def runtime(document: dict[str, Any]) -> Runtime:
    return Runtime(parse_runtime(document), "models", OWNER)
