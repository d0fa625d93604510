"""The command line as tests call it, and the documents that it is given."""

from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from router.cli.main import wml_serving


def run(*arguments: str, server: str = "127.0.0.1:1", **options: Any) -> Result:
    result = CliRunner().invoke(wml_serving, ["--server", server, *arguments], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def manifest(name: str, path: str = "a/b") -> dict[str, Any]:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": {
            "modelType": {"name": "sklearn"},
            "path": path,
            "storage": {"s3": {"secretKey": "key"}},
        },
    }


def shown(name: str, **status: object) -> dict[str, Any]:
    metadata = {"name": name, "creationTimestamp": "2000-01-01T00:00:00Z", "generation": 1}
    state = {
        "available": True,
        "activeModelState": "Loaded",
        "targetModelState": "",
        "transitionStatus": "UpToDate",
        **status,
    }
    return {**manifest(name), "metadata": metadata, "status": state}


def written(folder: Path, name: str, *documents: object) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump_all(documents))
    return path
