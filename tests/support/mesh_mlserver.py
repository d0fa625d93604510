"""Real runtimes for a mesh of tests: an adapter and an MLServer each, models from a local folder.

Any path that a Predictor names is the walk-through's model, made when it is applied; what a path
says of load times and sizes to `spi_runtime` means nothing here.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from mesh.wire.pb import model_repository_pb2 as pb
from mesh.wire.pb import model_repository_pb2_grpc as pb_grpc
from tests.support.mlserver import LOOPBACK, MLServerProcess
from tests.support.waiting import until

BIN = Path(sys.executable).parent
ASK_S = 10.0
# What the adapter takes a model for; a stand's capacity counts models of a million bytes.
A_MODEL = 1_000_000
FIRST = "first"
FIRST_SETTINGS = {
    "name": FIRST,
    "implementation": "mlserver_sklearn.SKLearnModel",
    "parameters": {"uri": "./model.joblib"},
}


@dataclass
class MLServerRuntime:
    """The face of `SpiRuntime`. `capacity_bytes` counts A_MODEL for each model; `enter` is what
    both commands begin with."""

    spi: str
    socket: Path
    folder: Path
    storage_config: Path
    root: Path
    capacity_bytes: int
    model: Path
    host: str = LOOPBACK
    enter: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        models = self.folder / "models"
        models.mkdir(parents=True)
        self.server = MLServerProcess(models, host=self.host, enter=self.enter)

    @property
    def data(self) -> str:
        return self.server.target

    def start(self) -> None:
        self.server.start()
        self._load_first()
        model_bytes = self.model.stat().st_size
        models_here = self.capacity_bytes // A_MODEL
        settings = {
            "ADAPTER_SOCKET": self.socket,
            "RUNTIME_PORT": self.server.grpc_port,
            "CONTAINER_MEM_REQ_BYTES": models_here * model_bytes,
            "MEM_BUFFER_BYTES": 0,
            "MODELSIZE_MULTIPLIER": 1,
            "DEFAULT_MODELSIZE": model_bytes,
            "ROOT_MODEL_DIR": self.server.root,
            "STORAGE_CONFIG_DIR": self.storage_config,
            "LOCAL_STORAGE_ROOTS": self.root,
        }
        env = {**os.environ} | {name: str(value) for name, value in settings.items()}  # noqa: TID251
        with (self.folder / "adapter.log").open("ab") as log:
            command = [*self.enter, BIN / "wml-serving", "adapter", "mlserver"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env)

    def until_ready(self) -> None:
        until(self.socket.exists, lambda: f"no adapter: {self.server.log()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.server.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.server.kill()

    async def index(self) -> set[str]:
        async with grpc.aio.insecure_channel(self.data) as channel:
            stub = pb_grpc.ModelRepositoryServiceStub(channel)
            answer = await stub.RepositoryIndex(
                pb.RepositoryIndexRequest(ready=True), timeout=ASK_S
            )
        return {model.name for model in answer.models}

    async def read(self) -> dict[str, Any]:
        """What there is to be known of an MLServer, by its log."""
        log = self.server.root.with_name(f"{self.server.root.name}.log").read_text(errors="replace")
        loads = Counter(re.findall(r"Loaded model '([^']+)'", log))
        del loads[FIRST]
        return {"loads": loads}

    async def change(self, **told: Any) -> None:
        raise NotImplementedError(f"MLServer cannot be told {told}")

    def _load_first(self) -> None:
        """With its first load MLServer imports a library, for seconds in which it answers nothing:
        longer than the deadlines of the scenarios' clients where a machine has much to do."""
        folder = self.server.served / FIRST
        folder.mkdir()
        shutil.copy(self.model, folder / "model.joblib")
        (folder / "model-settings.json").write_text(json.dumps(FIRST_SETTINGS))
        self.server.load(FIRST)
        self.server.unload(FIRST)
        shutil.rmtree(folder)


@dataclass
class MLServers:
    """Where the runtimes of a stand come from. `model`: the file that each Predictor gets."""

    folder: Path
    model: Path

    def __post_init__(self) -> None:
        self.root = self.folder / "store"
        self.root.mkdir(parents=True)
        self.config = self.folder / "storage-config"
        self.config.mkdir()
        entry: Mapping[str, str] = {"type": "local", "root": str(self.root)}
        (self.config / "k").write_text(json.dumps(entry))

    def provide(self, path: str) -> None:
        """The file that a Predictor names."""
        if not (self.root / path).exists():
            (self.root / path).write_bytes(self.model.read_bytes())

    def runtime(
        self,
        index: int,
        socket: Path,
        capacity_bytes: int,
        host: str = LOOPBACK,
        enter: Sequence[str] = (),
    ) -> MLServerRuntime:
        return MLServerRuntime(
            spi=f"unix:{socket}",
            socket=socket,
            folder=self.folder / f"runtime{index}",
            storage_config=self.config,
            root=self.root,
            capacity_bytes=capacity_bytes,
            model=self.model,
            host=host,
            enter=enter,
        )
