"""The adapter with the real MLServer: what it loads answers, what it unloads is gone."""

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from mesh.adapters.mlserver import MLServer
from mesh.ops.settings import AdapterSettings
from mesh.wire.pb import model_runtime_pb2 as spi
from tests.support.adapters import (
    STARTING,
    AdapterClient,
    FakeKeys,
    FakePuller,
    eventually,
    failure,
    files_below,
    running_adapter,
    settings_for,
)
from tests.support.mlserver import MLServerProcess, digits_svm, mlserver

__all__ = ["digits_svm", "mlserver"]

Code = grpc.StatusCode
EIGHT = json.loads((Path(__file__).parents[2] / "docs/requests/mnist.json").read_text())
PIXELS = EIGHT["inputs"][0]["contents"]["fp32_contents"]
LOST_S = 0.5
# A model that loads only once a file is there, and can be asked whether it tries to.
GATED = """
import asyncio, os
from mlserver import MLModel

class Gated(MLModel):
    async def load(self):
        folder = os.path.dirname(self.settings._source)
        open(self.settings.parameters.extra["began"], "w").close()
        while not os.path.exists(self.settings.parameters.extra["gate"]):
            await asyncio.sleep(0.01)
        return True
"""


@dataclass
class Rig:
    """One MLServer, a store in memory, and the lives of an adapter between them."""

    process: MLServerProcess
    socket: Path
    folder: Path
    puller: FakePuller = field(default_factory=FakePuller)
    settle_s: float = 30.0

    def life(self, server: MLServer) -> AbstractAsyncContextManager[AdapterClient]:
        settings: AdapterSettings = settings_for(self.process.root, self.socket)
        return running_adapter(settings, server, self.puller, FakeKeys())

    def server(self) -> MLServer:
        return MLServer(self.process.target, self.process.root, settle_s=self.settle_s)

    def left(self) -> set[str]:
        return files_below(self.process.root)

    def gated(self, path: str) -> tuple[Path, Path]:
        """A native model at `path`: the file that it makes as it begins, and the one it awaits."""
        began, gate = self.folder / f"{path}-began", self.folder / f"{path}-gate"
        settings = {
            "implementation": "gated.Gated",
            "parameters": {"extra": {"began": str(began), "gate": str(gate)}},
        }
        text = json.dumps(settings).encode()
        self.puller.files[path] = {"model-settings.json": text, "gated.py": GATED.encode()}
        return began, gate


@pytest.fixture
async def rig(mlserver: MLServerProcess, digits_svm: Path, tmp_path: Path) -> AsyncIterator[Rig]:
    model = await asyncio.to_thread(digits_svm.read_bytes)
    with tempfile.TemporaryDirectory(prefix="adapter-") as sockets:
        made = Rig(mlserver, Path(sockets) / "a.sock", tmp_path)
        made.puller.files["svm"] = {"mnist-svm.joblib": model}
        made.puller.files["broken"] = {"mnist-svm.joblib": b"this is no model"}
        yield made


@pytest.fixture
async def server(rig: Rig) -> AsyncIterator[MLServer]:
    made = rig.server()
    yield made
    await made.close()


@pytest.fixture
async def client(rig: Rig, server: MLServer) -> AsyncIterator[AdapterClient]:
    async with rig.life(server) as running:
        await running.ready(f"node-{time.monotonic_ns()}")
        yield running


async def test_loaded_model_answers_and_unloaded_one_is_gone(
    rig: Rig, client: AdapterClient
) -> None:
    size_bytes = len(rig.puller.files["svm"]["mnist-svm.joblib"])
    answer = await client.load("m", "svm")
    assert size_bytes * 1.25 <= answer.sizeInBytes < size_bytes * 1.25 + 1
    assert rig.process.infer("m", PIXELS) == 8
    assert rig.process.states() == {"m": "READY"}
    await client.unload("m")
    assert not rig.process.has("m")
    assert rig.process.states() == {}
    assert rig.left() == set()


async def test_model_named_by_its_folder_answers(rig: Rig, client: AdapterClient) -> None:
    model = rig.puller.files["svm"]["mnist-svm.joblib"]
    rig.puller.files["folder"] = {"model.joblib": model, "notes/readme.txt": b"hello"}
    await client.load("m", "folder")
    assert rig.process.infer("m", PIXELS) == 8


async def test_native_model_answers_under_our_id(rig: Rig, client: AdapterClient) -> None:
    settings = {
        "name": "their-name",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./deep/any.joblib", "version": "v9"},
    }
    rig.puller.files["native"] = {
        "model-settings.json": json.dumps(settings).encode(),
        "deep/any.joblib": rig.puller.files["svm"]["mnist-svm.joblib"],
    }
    await client.load("m", "native")
    assert rig.process.infer("m", PIXELS) == 8
    assert set(rig.process.states()) == {"m"}
    await client.unload("m")
    assert not rig.process.has("m")
    assert rig.left() == set()


async def test_broken_model_says_why_and_leaves_nothing(rig: Rig, client: AdapterClient) -> None:
    code, text = await failure(client.load("m", "broken"))
    assert code is Code.INTERNAL
    assert text.startswith("MLServer could not load the model: ")
    assert "damaged or of another type" in text
    assert rig.process.states() == {}
    assert rig.left() == set()
    await client.load("m", "svm")
    assert rig.process.infer("m", PIXELS) == 8


async def test_implementation_that_is_not_installed_says_so(
    rig: Rig, client: AdapterClient
) -> None:
    code, text = await failure(client.load("m", "svm", model_type={"name": "catboost"}))
    assert code is Code.INTERNAL
    assert "catboost" in text
    assert rig.left() == set()


async def test_settings_that_mlserver_does_not_take_are_named(
    rig: Rig, client: AdapterClient
) -> None:
    settings = b'{"max_batch_size": "many"}'
    rig.puller.files["odd"] = {"model-settings.json": settings, "model.joblib": b""}
    code, text = await failure(client.load("m", "odd"))
    assert code is Code.INTERNAL
    assert "does not accept its model-settings.json" in text
    assert rig.left() == set()


async def test_two_hundred_loads_of_one_model_are_one_in_mlserver(
    rig: Rig, client: AdapterClient
) -> None:
    before = rig.process.calls("RepositoryModelLoad")
    calls = [client.load("m", "svm") for _ in range(200)]
    for call in calls:
        await call
    assert rig.process.calls("RepositoryModelLoad") - before == 1
    assert len(rig.puller.pulls) == 1


async def test_several_models_load_at_once(rig: Rig, client: AdapterClient) -> None:
    models = [f"m{number}" for number in range(12)]
    calls = [client.load(model, "svm") for model in models]
    for call in calls:
        await call
    assert rig.process.states() == dict.fromkeys(models, "READY")
    unloads = [client.unload(model) for model in models[:6]]
    for unload in unloads:
        await unload
    assert rig.process.states() == dict.fromkeys(models[6:], "READY")
    assert rig.process.infer("m11", PIXELS) == 8


async def test_load_cancelled_in_mlserver_leaves_nothing_once_unload_returns(
    rig: Rig, client: AdapterClient
) -> None:
    began, gate = rig.gated("slow")
    call = client.load("m", "slow")
    await eventually(lambda: _exists(began))
    call.cancel()
    unload = client.spi.unloadModel(spi.UnloadModelRequest(modelId="m"))
    await client.load("other", "svm")
    assert not unload.done()
    gate.touch()
    await unload
    assert not rig.process.has("m")
    assert rig.process.states() == {"other": "READY"}
    assert {"m", "m.json"} & {part for path in rig.left() for part in Path(path).parts} == set()


async def test_load_that_never_ends_is_given_up_after_a_bound(rig: Rig) -> None:
    rig.settle_s = 0.2
    server = rig.server()
    began, _ = rig.gated("stuck")
    async with rig.life(server) as client:
        await client.ready("node-stuck")
        call = client.load("m", "stuck")
        await eventually(lambda: _exists(began))
        call.cancel()
        await client.unload("m")
        assert rig.process.states() == {}
        assert rig.left() == set()
        await client.load("other", "svm")
        assert rig.process.infer("other", PIXELS) == 8
    await server.close()


async def test_model_dropped_behind_our_back_is_loaded_again(
    rig: Rig, client: AdapterClient
) -> None:
    await client.load("m", "svm")
    rig.process.unload("m")
    assert not rig.process.has("m")
    await client.load("m", "svm")
    assert rig.process.infer("m", PIXELS) == 8


async def test_model_that_others_left_in_mlserver_is_purged(rig: Rig, server: MLServer) -> None:
    async with rig.life(server) as client:
        await client.ready("node-a")
        await client.load("m", "svm")
        _lay_out_stray(rig, "stray")
        rig.process.load("stray")
    async with rig.life(server) as client:
        await client.ready("node-a")
        assert rig.process.states() == {"m": "READY"}
        assert not rig.process.has("stray")
        assert rig.process.infer("m", PIXELS) == 8


async def test_new_life_of_the_node_purges_and_the_same_life_keeps(
    rig: Rig, server: MLServer
) -> None:
    async with rig.life(server) as client:
        await client.ready("node-b")
        size_bytes = (await client.load("m", "svm")).sizeInBytes
    assert rig.process.has("m")
    async with rig.life(server) as client:
        await client.ready("node-b")
        assert rig.process.infer("m", PIXELS) == 8
        answer = await client.spi.modelSize(spi.ModelSizeRequest(modelId="m"))
        assert answer.sizeInBytes == size_bytes
    async with rig.life(server) as client:
        await client.ready("node-c")
        assert not rig.process.has("m")
        assert rig.left() == set()


async def test_mlserver_killed_is_told_at_once_and_found_again(
    rig: Rig, client: AdapterClient
) -> None:
    node = (rig.process.root / "_node").read_text()
    await client.load("m", "svm")
    watch = await client.watch()
    rig.process.kill()
    killed_s = time.monotonic()
    try:
        assert (await watch.read()).WhichOneof("event") == "runtime_lost"
        assert time.monotonic() - killed_s < LOST_S
        assert (await client.status(node)).status == STARTING
        assert (await failure(client.load("m", "svm")))[0] is Code.UNAVAILABLE
        await eventually(lambda: _is(rig.left() == set()))
    finally:
        rig.process.start()
    started_s = time.monotonic()
    await client.ready(node)
    assert time.monotonic() - started_s < LOST_S
    await client.load("m", "svm")
    assert rig.process.infer("m", PIXELS) == 8


async def test_mlserver_killed_during_a_load_fails_it(rig: Rig, client: AdapterClient) -> None:
    began, _ = rig.gated("slow")
    call = client.load("m", "slow")
    await eventually(lambda: _exists(began))
    rig.process.kill()
    try:
        assert (await failure(call))[0] is Code.UNAVAILABLE
    finally:
        rig.process.start()
    await client.ready("node-after")
    assert rig.process.states() == {}
    assert rig.left() == set()


def _lay_out_stray(rig: Rig, model: str) -> None:
    folder = rig.process.served / model
    folder.mkdir()
    shutil.copy(rig.process.root / "_files/m/mnist-svm.joblib", folder / "model.joblib")
    settings = {"name": model, "implementation": "mlserver_sklearn.SKLearnModel"}
    (folder / "model-settings.json").write_text(json.dumps(settings))


async def _exists(path: Path) -> bool:
    return await asyncio.to_thread(path.exists)


async def _is(value: bool) -> bool:
    return value
