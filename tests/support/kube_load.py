"""Requests to Predictors from inside of a cluster, 50 a second, for as long as a block lasts.

`python -m tests.support.kube_load HOST:PORT CLIENTS` asks once by each connection that stays, says
so, and asks on until its input ends; or just so many requests as CLIENTS has. Then it prints JSON:
how many were asked, what those that failed were told, and when these were asked and ended, by the
machine's monotonic clock. No request is sent again.
"""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field, replace

import grpc
import grpc.aio

from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.support.kube_installation import NAME, Namespace
from tests.support.stand import mnist_request

ASKING = "asking"
# Channels to the same target share a connection otherwise.
APART = ("grpc.use_local_subchannel_pool", 1)
# What docs/operations.md asks of clients.
PINGS = (
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
)


@dataclass(frozen=True)
class Clients:
    """Who asks, and how: over `connections` that stay, or where there are 0, one a request.

    `count`: so many requests, not as many as there is time for. `has_pings`: a dead connection is
    noticed.
    """

    names: Sequence[str] = (NAME,)
    connections: int = 1
    every_s: float = 1 / 50
    deadline_s: float = 60
    count: int = 0
    has_pings: bool = False


@dataclass
class Told:
    asked: int = 0
    failures: list[str] = field(default_factory=list)
    failed_s: list[tuple[float, float]] = field(default_factory=list)


class Load:
    """To the Service, or to one pod of it; `connections` are spread over its pods by chance."""

    def __init__(
        self,
        namespace: Namespace,
        host: str = "",
        connections: int = 1,
        clients: Clients | None = None,
    ) -> None:
        clients = clients or replace(Clients(), connections=connections)
        command = load_command(host or namespace.address(), clients)
        self._process = subprocess.Popen(
            namespace.cluster.command(*command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.asked = 0
        self.failures: list[str] = []
        self.failed_s: list[tuple[float, float]] = []

    def __enter__(self) -> "Load":
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == ASKING
        return self

    def __exit__(self, *_: object) -> None:
        told = Told(**json.loads(self._process.communicate(timeout=90)[0]))
        self.asked, self.failures, self.failed_s = told.asked, told.failures, told.failed_s

    def lost(self) -> str:
        """How many failed, in what way, and in which seconds of the machine's clock."""
        spans = [f"{asked_s:.1f}-{ended_s:.1f}" for asked_s, ended_s in self.failed_s]
        ways = sorted(set(self.failures))
        return f"{len(self.failures)} of {self.asked}: {ways}, {spans}" if self.failures else ""


def load_command(host: str, clients: Clients) -> list[str]:
    program = (sys.executable, "-m", "tests.support.kube_load")
    return [*program, f"{host}:8033", json.dumps(asdict(clients))]


async def ask_until_told(target: str, clients: Clients) -> Told:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    told = Told()
    names = itertools.cycle(clients.names)
    options = (APART, *(PINGS if clients.has_pings else ()))

    async def ask(channel: grpc.aio.Channel, name: str) -> None:
        asked_s = time.monotonic()
        stub = kfs_grpc.GRPCInferenceServiceStub(channel)
        try:
            await stub.ModelInfer(mnist_request(name), timeout=clients.deadline_s)
        except grpc.aio.AioRpcError as error:
            told.failures.append(f"{error.code().name}: {error.details()}")
            told.failed_s.append((asked_s, time.monotonic()))

    async def ask_once(name: str) -> None:
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            await ask(channel, name)

    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:
        channels = [
            await opened.enter_async_context(grpc.aio.insecure_channel(target, options=options))
            for _ in range(clients.connections)
        ]
        if not clients.count:
            for channel in channels:
                told.asked += 1
                await ask(channel, clients.names[0])
            print(ASKING, flush=True)
        for number, name in enumerate(names):
            if number == clients.count if clients.count else ended.done():
                break
            over = channels and channels[number % len(channels)]
            tasks.create_task(ask(over, name) if over else ask_once(name))
            told.asked += 1
            await asyncio.sleep(clients.every_s)
    return told


if __name__ == "__main__":
    told = asyncio.run(ask_until_told(sys.argv[1], Clients(**json.loads(sys.argv[2]))))
    print(json.dumps(asdict(told)))
