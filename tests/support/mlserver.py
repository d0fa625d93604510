"""A real MLServer for tests: one process a session, asked by plain calls.

Use it with `pytest_plugins`, or import the fixture. Its folder is shared: an adapter that meets it
in a new life clears what the test before it left.
"""

import os
import random
import re
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_repository_pb2 as pb
from mesh.wire.pb import model_repository_pb2_grpc as repository_grpc

HERE = Path(__file__).resolve().parents[2]
VENV = HERE / ".run/venvs/mlserver"
MAKE_MODELS = HERE / "deploy/quickstart/make_example_models.py"
SUBDIR = "_mlserver_models"
LOOPBACK = "127.0.0.1"
# Below the ports that Linux gives to clients: after a restart they are free again.
PORTS = range(22_000, 32_000)
DEADLINE_S = 60.0
POLL_S = 0.02
METRIC = re.compile(
    r'^grpc_server_started_total\{[^}]*grpc_method="(\w+)"[^}]*\} ([0-9.e+]+)', re.M
)


class MLServerProcess:
    """MLServer over `root`; started by `start`, or as a context manager. `enter`: what its command
    begins with, where it lives at a `host` of its own."""

    def __init__(
        self, root: Path, venv: Path = VENV, host: str = LOOPBACK, enter: Sequence[str] = ()
    ) -> None:
        self.root = root
        self._host = host
        self._enter = enter
        self._venv = venv
        self.served = root / SUBDIR
        self.grpc_port, self.http_port, self.metrics_port = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = root.with_name(f"{root.name}.log")

    @property
    def target(self) -> str:
        return f"{self._host}:{self.grpc_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> "MLServerProcess":
        self.start()
        return self

    def __exit__(self, *ignored: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns once it answers."""
        self.served.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._enter, self._venv / "bin/mlserver", "start", self.served],
                env={**os.environ, **self._environment()},  # noqa: TID251 - handed on
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.root,
            )
        end_s = time.monotonic() + DEADLINE_S
        while not self.is_live():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end_s, f"MLServer does not answer: {self.log()}"
            time.sleep(POLL_S)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9, and gone when this returns."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """On the same ports."""
        self.stop()
        self.start()

    def is_live(self) -> bool:
        try:
            with self._channel() as channel:
                stub: Any = kfs_grpc.GRPCInferenceServiceStub(channel)
                return bool(stub.ServerLive(kfs.ServerLiveRequest(), timeout=1).live)
        except grpc.RpcError:
            return False

    def states(self) -> dict[str, str]:
        """What its index says of each model of which there is a folder."""
        with self._channel() as channel:
            stub: Any = repository_grpc.ModelRepositoryServiceStub(channel)
            answer = stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=10)
        return {model.name: model.state.removeprefix("State.") for model in answer.models}

    def has(self, model: str) -> bool:
        """Whether it would answer for the model, also where its folder is gone."""
        try:
            with self._channel() as channel:
                stub: Any = kfs_grpc.GRPCInferenceServiceStub(channel)
                return bool(stub.ModelReady(kfs.ModelReadyRequest(name=model), timeout=10).ready)
        except grpc.RpcError:
            return False

    def load(self, model: str) -> None:
        """Past any adapter."""
        with self._channel() as channel:
            stub: Any = repository_grpc.ModelRepositoryServiceStub(channel)
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=model), timeout=30)

    def unload(self, model: str) -> None:
        """Past any adapter."""
        with self._channel() as channel:
            stub: Any = repository_grpc.ModelRepositoryServiceStub(channel)
            request = pb.RepositoryModelUnloadRequest(model_name=model)
            stub.RepositoryModelUnload(request, timeout=30)

    def infer(self, model: str, pixels: list[float]) -> int:
        """The digit that the model sees; raises grpc.RpcError."""
        return int(self.ask(model, pixels).outputs[0].contents.int64_contents[0])

    def ask(self, model: str, pixels: list[float]) -> kfs.ModelInferResponse:
        """Of one row of numbers; raises grpc.RpcError."""
        tensor = kfs.ModelInferRequest.InferInputTensor(
            name="predict",
            shape=[1, len(pixels)],
            datatype="FP32",
            contents=kfs.InferTensorContents(fp32_contents=pixels),
        )
        with self._channel() as channel:
            stub: Any = kfs_grpc.GRPCInferenceServiceStub(channel)
            request = kfs.ModelInferRequest(model_name=model, inputs=[tensor])
            # Without it, MLflow models get the request as it is.
            request.parameters["content_type"].string_param = "np"
            answer: kfs.ModelInferResponse = stub.ModelInfer(request, timeout=10)
        return answer

    def calls(self, method: str) -> int:
        """How often a gRPC method was called since the start, as its own metrics count."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            counts = METRIC.findall(answer.read().decode())
        return sum(int(float(count)) for name, count in counts if name == method)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-5000:]

    def _channel(self) -> grpc.Channel:
        return grpc.insecure_channel(self.target)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(DEADLINE_S)
            self._process = None

    def _environment(self) -> dict[str, str]:
        return {
            # Its adapter calls it on loopback, wherever it is.
            "MLSERVER_HOST": LOOPBACK if self._host == LOOPBACK else "0.0.0.0",  # noqa: S104
            "MLSERVER_GRPC_PORT": str(self.grpc_port),
            "MLSERVER_HTTP_PORT": str(self.http_port),
            "MLSERVER_METRICS_PORT": str(self.metrics_port),
            "MLSERVER_LOAD_MODELS_AT_STARTUP": "false",
            "MLSERVER_MODEL_NAME": "dummy-model-fixme",
            "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": "-1",
            "MLSERVER_PARALLEL_WORKERS": "0",
        }


@pytest.fixture(scope="session")
def mlserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLServerProcess]:
    """A test that kills it starts it again."""
    with MLServerProcess(tmp_path_factory.mktemp("mlserver")) as server:
        yield server


@pytest.fixture(scope="session")
def digits_svm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The walk-through's model file."""
    folder = tmp_path_factory.mktemp("example-models")
    subprocess.run([VENV / "bin/python", MAKE_MODELS, folder], check=True)
    return folder / "sklearn/mnist-svm.joblib"


def _free_ports(count: int) -> list[int]:
    """Random ones, so that several sessions seldom want the same."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            if port not in found and probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
    return found
