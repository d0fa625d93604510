"""Every model type of the adapter with the real MLServer and the type's own library."""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.mlserver import MLServer
from mesh.adapters.mlserver_layout import IMPLEMENTATIONS
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.bench import make_sized_model
from tests.support.adapters import (
    AdapterClient,
    FakeKeys,
    FakePuller,
    running_adapter,
    settings_for,
)
from tests.support.mlserver import HERE, MLServerProcess

# With the libraries of all types, which the runtime that is shipped does not have.
VENV = HERE / ".run/venvs/mlserver-more"
pytestmark = pytest.mark.skipif(
    not (VENV / ".done").exists(), reason="the libraries of all types: make test-model-types"
)
KINDS = ("sklearn-forest", "xgboost-json", "xgboost-ubj", "lightgbm", "catboost", "mlflow")
MODEL_BYTES = 30_000


@pytest.fixture(scope="module")
def puller(tmp_path_factory: pytest.TempPathFactory) -> FakePuller:
    """Has a small model of each kind, under the kind's name."""
    folder = tmp_path_factory.mktemp("models")
    with ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda kind: _made(kind, folder), KINDS)
        return FakePuller(files=dict(zip(KINDS, made, strict=True)))


def _made(kind: str, folder: Path) -> dict[str, bytes]:
    command = [VENV / "bin/python", make_sized_model.__file__, kind, str(MODEL_BYTES), folder]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    path = Path(made.stdout.splitlines()[-1])
    top = path.parent if path.is_file() else path
    below = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(top)): file.read_bytes() for file in below}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServerProcess]:
    with MLServerProcess(tmp_path_factory.mktemp("mlserver"), VENV) as process:
        yield process


@pytest.fixture
async def client(process: MLServerProcess, puller: FakePuller) -> AsyncIterator[AdapterClient]:
    server = MLServer(process.target, process.root)
    with tempfile.TemporaryDirectory(prefix="adapter-") as sockets:
        settings = settings_for(process.root, Path(sockets) / "a.sock")
        async with running_adapter(settings, server, puller, FakeKeys()) as running:
            await running.ready(f"node-{time.monotonic_ns()}")
            yield running
    await server.close()


def test_a_kind_of_each_type_is_tried():
    assert {kind.partition("-")[0] for kind in KINDS} == set(IMPLEMENTATIONS)


@pytest.mark.parametrize("kind", KINDS)
async def test_model_of_each_type_is_loaded_and_answers(
    process: MLServerProcess, client: AdapterClient, kind: str
) -> None:
    model_type = kind.partition("-")[0]
    answer = await client.load("m", kind, model_type={"name": model_type})
    assert answer.sizeInBytes > MODEL_BYTES
    for value, label in ((0.5, 1), (-0.5, 0)):
        row = [value] * make_sized_model.FEATURES
        answered = await asyncio.to_thread(process.ask, "m", row)
        assert round(_first(answered)) == label
    await client.unload("m")
    assert not process.has("m")


def _first(answer: kfs.ModelInferResponse) -> float:
    """The first number of the first output, whatever its type."""
    (contents, *_) = (output.contents for output in answer.outputs)
    values: list[Any] = [value for _, listed in contents.ListFields() for value in listed]
    return float(values[0])
