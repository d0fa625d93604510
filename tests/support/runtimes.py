"""ServingRuntime documents as files would give them."""

from typing import Any

RUNTIME_PORT = 8001
HTTP_PORT = 8080


def mlserver_runtime(**spec: object) -> dict[str, Any]:
    """A runtime as small as one may be on one machine; `spec` replaces fields of its spec."""
    fields = {
        "supportedModelTypes": [{"name": "sklearn"}],
        "multiModel": True,
        "grpcDataEndpoint": f"port:{RUNTIME_PORT}",
        "containers": [mlserver_container()],
        "builtInAdapter": {"serverType": "mlserver", "runtimeManagementPort": RUNTIME_PORT},
        **spec,
    }
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "ServingRuntime",
        "metadata": {"name": "mlserver-1.x"},
        "spec": fields,
    }


def mlserver_container(**fields: object) -> dict[str, Any]:
    return {
        "name": "mlserver",
        "image": "seldonio/mlserver:1.7.1",
        "command": ["mlserver", "start"],
        "args": ["/models/_mlserver_models"],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
        **fields,
    }
