"""The processes that are measured: the backend, and the three that stand before it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WORK = ROOT / ".run/bench"
ENVOY = ROOT / ".run/venvs/bench/bin/envoy"
START_S = 30.0
# What a client calls the models; the backend itself answers to any name.
MODELS = ("p0", "p1")


class Missing(Exception):
    """A program that the benchmark needs is not there; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A way to the backend: `models` has who must answer for each name; `named` is the one in use.

    `pid` is the process whose CPU and memory count.
    """

    name: str
    address: str
    pid: int
    models: Mapping[str, str] = field(default_factory=lambda: {name: name for name in MODELS})
    named: str = "p0"

    @property
    def model(self) -> str:
        return self.models[self.named]

    def by(self, named: str) -> "Server":
        """The same process, with another of its models in use."""
        return replace(self, named=named)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of ours, and the lines that it prints: one for each load."""

    server: Server
    output: IO[str]

    def next_line(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.output.readline())
        return line


def check_programs() -> None:
    """Raises Missing."""
    if shutil.which("h2load") is None:
        raise Missing("h2load is not on PATH: apt-get install nghttp2-client")
    if shutil.which("go") is None:
        raise Missing("go is not on PATH: it builds the benchmark's backend (tests/bench/backend)")
    if not ENVOY.exists():
        raise Missing(f"{ENVOY} is not there: run `make bench`, which installs it")


def build_backend() -> Path:
    WORK.mkdir(parents=True, exist_ok=True)
    program = WORK / "backend"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "backend", check=True)
    return program


@contextmanager
def running(log: str, *command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the context lasts; its errors go to `.run/bench/<log>.log`."""
    with (WORK / f"{log}.log").open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    """What a server says once it listens."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"it did not start: {process.args!r}; see {WORK}/*.log")
    return line


@contextmanager
def backend() -> Iterator[Server]:
    with running("backend", build_backend()) as process:
        yield Server("direct", first_line(process), process.pid)


@contextmanager
def bare(upstream: str) -> Iterator[Server]:
    with running("bare", sys.executable, "-m", "tests.bench.bare", upstream) as process:
        yield Server("bare", first_line(process), process.pid)


@contextmanager
def node(upstream: str, *, predictors: int, room: int, load_ms: float) -> Iterator[Node]:
    """A node of ours with the Predictors p0, p1, …, and a runtime that takes so long to load."""
    arguments = [f"--predictors={predictors}", f"--room={room}", f"--load-ms={load_ms}"]
    program = [sys.executable, "-m", "tests.bench.routed", upstream, *arguments]
    with running("router", *program) as process:
        line = json.loads(first_line(process))
        assert process.stdout is not None
        while "address" not in line:
            line = json.loads(process.stdout.readline())
        server = Server("router", line["address"], process.pid, line["models"])
        yield Node(server, process.stdout)


@contextmanager
def envoy(upstream: str) -> Iterator[Server]:
    port = _free_port()
    filled = {"LISTEN_PORT": str(port), "UPSTREAM_PORT": upstream.rpartition(":")[2]}
    config = (HERE / "envoy.yaml").read_text()
    for word, value in filled.items():
        config = config.replace(word, value)
    path = WORK / "envoy.yaml"
    path.write_text(config)
    flags = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with running("envoy", ENVOY, "-c", path, *flags) as process:
        _until_listening(port)
        yield Server("envoy", f"127.0.0.1:{port}", process.pid)


@contextmanager
def all_servers() -> Iterator[Mapping[str, Server]]:
    """direct, envoy, bare and router before one backend."""
    with ExitStack() as stack:
        direct = stack.enter_context(backend())
        routed = stack.enter_context(node(direct.address, predictors=2, room=2, load_ms=0))
        yield {
            "direct": direct,
            "envoy": stack.enter_context(envoy(direct.address)),
            "bare": stack.enter_context(bare(direct.address)),
            "router": routed.server,
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _until_listening(port: int) -> None:
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}; see {WORK}/*.log")
