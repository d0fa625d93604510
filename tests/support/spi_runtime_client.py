"""A process of `spi_runtime`, and what it knows: asked of it, not of anybody's records."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from mesh.wire.pb import model_repository_pb2 as pb
from mesh.wire.pb import model_repository_pb2_grpc as pb_grpc
from tests.support.spi_runtime import CONTROL, OURS
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
ASK_S = 10.0


@dataclass
class SpiRuntime:
    """`spi` and `data` are its gRPC targets; it outlives the node beside it. `enter`: what its
    command begins with."""

    spi: str
    data: str
    log: Path
    capacity_bytes: int = 10_000_000
    traits: str = ""
    at_once: int = 4
    calls_at_once: int = 0
    is_any_allowed: bool = False
    kind: str = OURS
    enter: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Does not wait; see `until_ready`."""
        command = [*self.enter, sys.executable, "-m", "tests.support.spi_runtime"]
        command += ["--spi", self.spi, "--data", self.data, "--adapter", self.kind]
        command += ["--capacity", str(self.capacity_bytes), "--traits", self.traits]
        command += ["--at-once", str(self.at_once), "--calls-at-once", str(self.calls_at_once)]
        if self.is_any_allowed:
            command.append("--any-method")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)

    def until_ready(self) -> None:
        until(
            lambda: "ready" in self.log.read_text(), lambda: f"no runtime: {self.log.read_text()}"
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    async def index(self) -> set[str]:
        """The models that it holds, by its own repository."""
        async with grpc.aio.insecure_channel(self.data) as channel:
            stub = pb_grpc.ModelRepositoryServiceStub(channel)
            answer = await stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=ASK_S)
        return {model.name for model in answer.models}

    async def read(self) -> dict[str, Any]:
        """All that it counts: see `spi_runtime.Counts` and `spi_runtime.control`."""
        return json.loads(await self._ask("Read", {}))

    async def change(self, **told: Any) -> None:
        await self._ask("Change", told)

    async def _ask(self, method: str, told: dict[str, Any]) -> bytes:
        async with grpc.aio.insecure_channel(self.data) as channel:
            call = channel.unary_unary(f"/{CONTROL}/{method}")
            return await call(json.dumps(told).encode(), timeout=ASK_S)
