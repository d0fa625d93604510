"""A real `wml-serving serve` on free ports, for end-to-end tests.

Its own process, a real MLServer, a real S3 server behind a gate, and the real grpcurl.
"""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import psutil
import yaml

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_repository_pb2 as repository
from mesh.wire.pb import model_repository_pb2_grpc as repository_grpc
from tests.support.gated_proxy import GatedProxy
from tests.support.ports import free_ports
from tests.support.s3 import S3Server
from tests.support.waiting import DEADLINE_S, until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MLSERVER_BIN = ROOT / ".run/venvs/mlserver/bin"
RUNTIME = ROOT / "deploy/runtimes/mlserver-1.x.yaml"
STORAGE_KEY = "wml-serving-example-models"
MNIST = json.loads((ROOT / "docs/requests/mnist.json").read_text())


@dataclass
class Stand:
    """The addresses are those of the running process; `folder` has its state and its log."""

    folder: Path
    bucket: str
    s3: S3Server
    proxy: GatedProxy
    port: int
    management_port: int
    operations_port: int
    rest_port: int
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    # The process.

    def start(self) -> None:
        command = [BIN / "wml-serving", "serve", *self.arguments]
        with (self.folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self._is_listening(), "serve listens")

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self, program: str) -> None:
        """kill -9 of one of its processes: `mlserver` or `adapter`."""
        self.signal(program, signal.SIGKILL)

    def signal(self, program: str, number: signal.Signals) -> None:
        assert self.process is not None
        words = {"mlserver": "/mlserver start", "adapter": "router adapter"}[program]
        children = psutil.Process(self.process.pid).children(recursive=True)
        victims = [child for child in children if words in " ".join(child.cmdline())]
        assert victims, [child.cmdline() for child in children]
        for victim in victims:
            victim.send_signal(number)

    def is_ready(self) -> bool:
        """What /readyz says."""
        try:
            url = f"http://127.0.0.1:{self.operations_port}/readyz"
            with urllib.request.urlopen(url, timeout=5):
                return True
        except urllib.error.HTTPError:
            return False

    def log(self, program: str = "") -> str:
        path = (
            self.folder / "state/logs" / f"{program}.log" if program else self.folder / "serve.log"
        )
        return path.read_text() if path.exists() else ""

    def moments(self, words: str, program: str = "") -> list[datetime]:
        """When lines with these words were logged; stamps without a zone are local."""
        found = re.findall(
            rf"^(\d{{4}}-\S+[T ][\d:.,]+\S*).*{re.escape(words)}", self.log(program), re.M
        )
        return [datetime.fromisoformat(stamp.replace(",", ".")).astimezone() for stamp in found]

    def _is_listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def until(
        self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S
    ) -> None:
        """Polls until a condition holds."""
        until(condition, lambda: f"not in time: {what}\n{self.log()[-4000:]}", deadline_s)

    # What a user does.

    def apply(self, name: str, path: str, *, type_name: str = "sklearn", **storage: str) -> str:
        storage = {"secretKey": STORAGE_KEY} | storage
        return self.apply_spec(
            name, {"modelType": {"name": type_name}, "path": path, "storage": {"s3": storage}}
        )

    def apply_spec(self, name: str, spec: Mapping[str, Any]) -> str:
        document = {
            "apiVersion": "wmlserving.ai.ibm.com/v1",
            "kind": "Predictor",
            "metadata": {"name": name},
            "spec": spec,
        }
        return self.cli("apply", "-f", "-", text=yaml.safe_dump(document)).stdout

    def cli(self, *arguments: str, text: str = "", check: bool = True):
        server = f"127.0.0.1:{self.management_port}"
        return subprocess.run(
            [BIN / "wml-serving", "--server", server, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=check,
            timeout=DEADLINE_S,
        )

    def row(self, name: str) -> str:
        """AVAILABLE ACTIVEMODEL TARGETMODEL TRANSITION as the table shows them, by its columns."""
        header, *rows = self.cli("get", "predictors").stdout.splitlines()
        line = next(row for row in rows if row.startswith(name + " "))
        starts = [match.start() for match in re.finditer(r"\S+", header)] + [len(line) + 1]
        cells = [line[a:b].strip() for a, b in pairwise(starts)]
        return " ".join(cells[2:6])

    def reaches(self, name: str, row: str) -> None:
        self.until(lambda: self.row(name) == row, f"{name} shows {row!r}, not {self.row(name)!r}")

    def status(self, name: str) -> dict[str, Any]:
        return json.loads(self.cli("get", "predictor", name, "-o", "json").stdout)["status"]

    def grpcurl(self, *arguments: str, body: Mapping[str, Any] | None = None):
        """grpcurl on the public port: the flags, then what comes after the address."""
        flags = [argument for argument in arguments if argument.startswith("-")]
        rest = [argument for argument in arguments if not argument.startswith("-")]
        data = [] if body is None else ["-d", "@"]
        return subprocess.run(
            [BIN / "grpcurl", "-plaintext", *flags, *data, f"localhost:{self.port}", *rest],
            input=None if body is None else json.dumps(body),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
            cwd=ROOT,
        )

    def infer(self, name: str) -> tuple[str, int]:
        """The walk-through's request by grpcurl: the id that answered, and the digit."""
        body = MNIST | {"model_name": name}
        done = self.grpcurl("inference.GRPCInferenceService.ModelInfer", body=body)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        contents = answer["outputs"][0]["contents"]
        return answer["modelName"], int(next(iter(contents.values()))[0])

    def refusal(self, name: str) -> str:
        """What grpcurl says of a request that is refused."""
        body = MNIST | {"model_name": name}
        done = self.grpcurl("inference.GRPCInferenceService.ModelInfer", body=body)
        assert done.returncode != 0
        return done.stderr

    # What is at the servers, asked of them.

    def put(self, path: str, content: Path | bytes) -> None:
        self.s3.put(self.bucket, path, content)

    def loads(self, model: str) -> int:
        """How often MLServer loaded a model, by its own log."""
        return self.log("mlserver").count(f"Loaded model '{model}'")

    def held(self) -> set[str]:
        """The models that MLServer holds, by its own index."""
        match = re.findall(r"runtime started data_address=(\S+)", self.log())
        with grpc.insecure_channel(match[-1]) as channel:
            stub = repository_grpc.ModelRepositoryServiceStub(channel)
            index = stub.RepositoryIndex(repository.RepositoryIndexRequest(ready=True), timeout=5)
        return {model.name for model in index.models}

    def channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")


def mnist_request(name: str) -> kfs.ModelInferRequest:
    """The walk-through's request."""
    request = kfs.ModelInferRequest(model_name=name)
    tensor = request.inputs.add(name="predict", datatype="FP32", shape=[1, 64])
    tensor.contents.fp32_contents.extend(MNIST["inputs"][0]["contents"]["fp32_contents"])
    return request


def stub(channel: grpc.Channel) -> kfs_grpc.GRPCInferenceServiceStub:
    return kfs_grpc.GRPCInferenceServiceStub(channel)


def digit(answer: kfs.ModelInferResponse) -> int:
    contents = answer.outputs[0].contents
    (_, values), *_ = contents.ListFields()
    return int(values[0])


@contextmanager
def standing(
    folder: Path,
    s3: S3Server,
    *,
    room_bytes: int | None = None,
    options: Sequence[str] = (),
    **adapter_env: str,
) -> Iterator[Stand]:
    """A running stand; `room_bytes` is the memory that its runtime has for models.

    `options` are further ones of `serve`.
    """
    bucket = s3.bucket()
    ports = port, management_port, operations_port, rest_port = free_ports(4)
    with s3.proxy() as proxy:
        s3.write_key(folder / "keys", STORAGE_KEY, bucket, endpoint_url=proxy.endpoint_url)
        arguments = (
            *("--runtime", str(_runtime_file(folder, room_bytes, adapter_env))),
            *("--runtime-bin", str(MLSERVER_BIN)),
            *("--state", str(folder / "state")),
            *("--storage-config", str(folder / "keys")),
            *("--listen", f"127.0.0.1:{port}"),
            *("--management", f"127.0.0.1:{management_port}"),
            *("--operations", f"127.0.0.1:{operations_port}"),
            *("--rest-listen", f"127.0.0.1:{rest_port}"),
            *options,
        )
        stand = Stand(folder, bucket, s3, proxy, *ports, arguments)
        stand.start()
        try:
            yield stand
        finally:
            proxy.release()
            if stand.process is not None and stand.process.poll() is None:
                stand.stop()


def _runtime_file(folder: Path, room_bytes: int | None, adapter_env: Mapping[str, str]) -> Path:
    """The shipped ServingRuntime, with another amount of memory where a test asks for it."""
    if room_bytes is None and not adapter_env:
        return RUNTIME
    document = yaml.safe_load(RUNTIME.read_text())
    adapter = document["spec"]["builtInAdapter"]
    if room_bytes is not None:
        memory = str(adapter["memBufferBytes"] + room_bytes)
        document["spec"]["containers"][0]["resources"]["requests"]["memory"] = memory
    adapter["env"] = [{"name": name, "value": value} for name, value in adapter_env.items()]
    path = folder / "runtime.yaml"
    path.write_text(yaml.safe_dump(document))
    return path
