"""A mesh for tests: real nodes over a real etcd, each with a runtime process of ours beside it.

Node N lives on 127.A.B.(10+N) with the ports that it has everywhere, where A and B are the stand's
own, so that stands do not meet. The faults are those of processes: killed, frozen, told to leave,
cut off from each other (by `mesh_cut`, or in a `mesh_lab` by the kernel).
"""

import asyncio
import contextlib
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil

from mesh.core.ids import PredictorName, model_id
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc
from tests.support.etcd import ALONE, Etcd
from tests.support.mesh_cut import CuttingProxies
from tests.support.mesh_lab import Lab
from tests.support.mesh_mlserver import MLServerRuntime, MLServers
from tests.support.mesh_versions import Versions
from tests.support.ports import free_ports
from tests.support.spi_runtime_client import SpiRuntime

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
RUNTIME = ROOT / "deploy/runtimes/mlserver-1.x.yaml"
STORAGE_KEY = "k"
DEADLINE_S = 30.0
ASK_S = 10.0
POLL_S = 0.05
# What a node that leaves waits for, short for tests.
CONNECTION_AGE_S = 1.0
MANAGEMENT_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)

# Makes a stand; its arguments are those of `mesh_stand`.
MakeMesh = Callable[..., contextlib.AbstractAsyncContextManager["MeshStand"]]


async def eventually(
    condition: Callable[[], Awaitable[Any]], what: Callable[[], str], deadline_s: float = DEADLINE_S
) -> None:
    """Polls until a condition holds; fails with the message after `deadline_s`."""
    end_s = time.monotonic() + deadline_s
    while not await condition():
        assert time.monotonic() < end_s, f"not in {deadline_s:.0f} s: {what()}"
        await asyncio.sleep(POLL_S)


# Not those of `make run`, which wants its own on every address and may be tested beside.
PUBLIC, INTERNAL, OPERATIONS, REST = 18033, 18034, 12112, 18008


@dataclass
class MeshNode:
    """One node and the runtime beside it. `announced` is where other nodes are told to call,
    `enter` what its command begins with."""

    index: int
    host: str
    folder: Path
    store: Path | str
    runtime: SpiRuntime | MLServerRuntime | None
    announced: str = ""
    options: Sequence[str] = ()
    enter: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    is_frozen: bool = field(default=False, init=False)
    past_lives: int = field(default=0, init=False)
    channel: grpc.aio.Channel | None = field(default=None, init=False)

    @property
    def public(self) -> str:
        return f"{self.host}:{PUBLIC}"

    @property
    def internal(self) -> str:
        return f"{self.host}:{INTERNAL}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_well(self) -> bool:
        return self.is_running and not self.is_frozen

    @property
    def id(self) -> str:
        """With its incarnation, of the life that is running."""
        return self.ids()[-1]

    def ids(self) -> list[str]:
        """Of all its lives so far."""
        return re.findall(r"wml-serving node (\S+) is up", self.log())

    def start(self) -> None:
        command: list[Any] = [*self.enter, BIN / "wml-serving", "node", "--store", self.store]
        command += ["--name", f"node{self.index}", "--listen", self.public]
        command += ["--internal", self.internal, "--operations", f"{self.host}:{OPERATIONS}"]
        command += ["--rest-listen", f"{self.host}:{REST}"]
        command += ["--connection-age", str(CONNECTION_AGE_S)]
        if self.announced:
            command += ["--address", self.announced]
        if self.runtime is not None:
            command += ["--runtime", self.runtime.spi, "--data", self.runtime.data]
            command += ["--serving-runtime", RUNTIME]
        self.past_lives = len(self.ids())
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        self.is_frozen = False

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.is_frozen = True

    def resume(self) -> None:
        self._signal(signal.SIGCONT)
        self.is_frozen = False

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    async def until_ended(self, deadline_s: float = DEADLINE_S) -> int:
        assert self.process is not None

        async def ended() -> bool:
            return not self.is_running

        await eventually(ended, lambda: f"{self.public} ends\n{self.tail()}", deadline_s)
        return int(self.process.returncode)

    async def until_ready(self, deadline_s: float = DEADLINE_S) -> None:
        await eventually(
            self.is_ready, lambda: f"{self.public} is ready\n{self.tail()}", deadline_s
        )

    async def is_ready(self) -> bool:
        assert self.is_running, self.tail()
        return len(self.ids()) > self.past_lives and await self.get("/readyz") == 200

    async def get(self, path: str) -> int:
        """The status of its operations port; 0 where nobody answers."""
        with contextlib.suppress(OSError, TimeoutError, IndexError, ValueError):
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection(self.host, OPERATIONS)
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode())
                    return int((await reader.readline()).split()[1])
                finally:
                    writer.close()
                    await writer.wait_closed()
        return 0

    @property
    def manage(self) -> pb_grpc.ManagementStub:
        if self.channel is None:
            self.channel = grpc.aio.insecure_channel(self.internal, options=MANAGEMENT_OPTIONS)
        return pb_grpc.ManagementStub(self.channel)

    async def read(self, kind: str, name: str = "") -> list[dict[str, Any]]:
        """What the node knows: PREDICTOR, MODEL, NODE or COPY."""
        request = pb.ReadRequest(kind=pb.Kind.Value(kind), name=name)
        events = self.manage.Read(request, timeout=ASK_S)
        return [json.loads(event.json) async for event in events]

    @property
    def log_file(self) -> Path:
        return self.folder / f"node{self.index}.log"

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def tail(self) -> str:
        return self.log()[-3000:]

    def memory_bytes(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def close(self) -> None:
        if self.channel is not None:
            await self.channel.close(None)
            self.channel = None
        if self.is_running:
            self.kill()
        if self.runtime is not None:
            self.runtime.stop()

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@dataclass
class MeshStand:
    """`cuts` is None where the nodes speak to each other directly, `mlservers` where the runtimes
    are `spi_runtime`, `lab` where all are on loopback."""

    folder: Path
    sockets: Path
    etcd: Etcd
    subnet: str
    store: Path | str
    root_prefix: str
    capacity_bytes: int = 10_000_000
    traits: str = ""
    options: Sequence[str] = ()
    kind: str = "ours"
    calls_at_once: int = 0
    is_any_allowed: bool = False
    cuts: CuttingProxies | None = None
    lab: Lab | None = None
    nodes: list[MeshNode] = field(default_factory=list)
    mlservers: MLServers | None = None
    versions: Versions = field(default_factory=Versions)
    made: int = 0

    # Nodes.

    def add(self, *, has_runtime: bool = True, options: Sequence[str] = ()) -> MeshNode:
        """One more node, not ready yet."""
        index = self.made
        self.made += 1
        host = f"{self.subnet}.{10 + index}"
        runtime = self._runtime(index, host) if has_runtime else None
        announced = (
            "" if self.cuts is None else self.cuts.open(f"{self.subnet}.{100 + index}:{INTERNAL}")
        )
        node = MeshNode(
            *(index, host, self.folder, self.store, runtime, announced),
            options=(*self.options, *options),
            enter=_enter(self.lab, host),
        )
        self.nodes.append(node)
        if self.cuts is not None:
            self.cuts.lead(announced, node)
        if runtime is not None:
            runtime.start()
            runtime.until_ready()
        node.start()
        return node

    async def until_ready(self) -> None:
        """All of them, each knowing all."""
        for node in self.nodes:
            await node.until_ready()
        await self.until_known()

    async def until_known(self) -> None:
        """Every running node knows every running node, and no other, as one that serves."""
        expected = {node.id for node in self.well}

        async def known() -> bool:
            return all([await self._ready_ids(node) == expected for node in self.well])

        await eventually(known, lambda: f"all know {sorted(expected)}")

    async def _ready_ids(self, node: MeshNode) -> set[str]:
        return {
            found["metadata"]["name"]
            for found in await node.read("NODE")
            if found["status"]["state"] == "Ready"
        }

    @property
    def well(self) -> list[MeshNode]:
        return [node for node in self.nodes if node.is_well]

    @property
    def publics(self) -> list[str]:
        return [node.public for node in self.nodes]

    def node(self, node_id: str) -> MeshNode:
        return next(node for node in self.nodes if node.is_running and node.id == node_id)

    # Predictors, as an administrator would change them.

    async def apply(self, name: str, path: str, *, at: MeshNode | None = None, **spec: Any) -> str:
        """The id of the backing model that it has from now on."""
        fields = {
            "modelType": {"name": "sklearn"},
            "path": path,
            "storage": {"s3": {"secretKey": STORAGE_KEY}},
        } | spec
        body = {
            "apiVersion": "wmlserving.ai.ibm.com/v1",
            "kind": "Predictor",
            "metadata": {"name": name},
            "spec": fields,
        }
        model = str(model_id(PredictorName(name), fields))
        self.versions.applied(name, model)
        if self.mlservers is not None:
            self.mlservers.provide(path)
        request = pb.ApplyRequest(json=json.dumps(body))
        await (at or self.well[0]).manage.Apply(request, timeout=ASK_S)
        return model

    async def delete(self, name: str, *, at: MeshNode | None = None) -> None:
        await (at or self.well[0]).manage.Delete(pb.DeleteRequest(name=name), timeout=ASK_S)
        self.versions.deleted(name)

    async def until_settled(self, name: str, deadline_s: float = DEADLINE_S) -> None:
        """Its last change is done, as every node that is well sees it."""
        latest = self.versions.latest(name)
        seen: dict[str, str] = {}

        async def settled() -> bool:
            seen.clear()
            for node in self.well:
                try:
                    seen[node.public] = await self._standing(name, node)
                except grpc.aio.AioRpcError as error:
                    seen[node.public] = error.code().name
            return set(seen.values()) == {f"{latest} UpToDate"}

        await eventually(settled, lambda: f"{name} is settled at {latest}: {seen}", deadline_s)
        self.versions.settled(name, latest)

    async def _standing(self, name: str, node: MeshNode) -> str:
        """The model that it should have, and how far it is there."""
        answer = await node.manage.Get(pb.GetRequest(name=name), timeout=ASK_S)
        found = json.loads(answer.json)
        model = model_id(PredictorName(name), found["spec"])
        return f"{model} {found['status']['transitionStatus']}"

    # What is really held.

    async def holders(self, model: str) -> list[MeshNode]:
        """The nodes whose runtimes hold it, by the runtimes' own word."""
        return [node for node in self.nodes if node.runtime and model in await node.runtime.index()]

    async def until_held(self, name: str, node: MeshNode) -> None:
        """The node's runtime holds what the Predictor has now."""
        model = self.versions.latest(name)

        async def held() -> bool:
            return node.runtime is not None and model in await node.runtime.index()

        await eventually(held, lambda: f"{node.public} holds {model}")

    async def loads(self, model: str) -> int:
        """How often it was loaded, by all runtimes together."""
        counts = [await node.runtime.read() for node in self.nodes if node.runtime]
        return sum(count["loads"].get(model, 0) for count in counts)

    def _runtime(self, index: int, host: str) -> SpiRuntime | MLServerRuntime:
        if self.mlservers is not None:
            socket = self.sockets / f"{index}.sock"
            where = {} if self.lab is None else {"host": host, "enter": self.lab.enter(host)}
            return self.mlservers.runtime(index, socket, self.capacity_bytes, **where)
        return SpiRuntime(
            spi=f"unix:{self.sockets}/{index}.sock",
            data=f"{host}:8001",
            log=self.folder / f"runtime{index}.log",
            capacity_bytes=self.capacity_bytes,
            traits=self.traits,
            calls_at_once=self.calls_at_once,
            is_any_allowed=self.is_any_allowed,
            kind=self.kind,
            enter=_enter(self.lab, host),
        )


@contextlib.asynccontextmanager
async def mesh_stand(
    folder: Path,
    *,
    nodes: int = 3,
    is_cuttable: bool = False,
    lab: Lab | None = None,
    **settings: Any,
) -> AsyncIterator[MeshStand]:
    """Nodes that are ready; everything is stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing runs yet
    subnet = _subnet() if lab is None else lab.subnet
    etcd = _etcd(folder / "etcd", subnet, lab)
    # Not in the test's folder: the path of a socket may have 107 bytes.
    with contextlib.ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-")))
        cuts = stack.enter_context(CuttingProxies()) if is_cuttable else None
        etcd.start()
        stack.callback(etcd.kill)
        secret = etcd.secret()
        store = folder / "store.json"
        store.write_text(json.dumps(secret))
        stand = MeshStand(
            folder,
            sockets,
            etcd,
            subnet,
            store,
            secret["root_prefix"],
            cuts=cuts,
            lab=lab,
            **settings,
        )
        try:
            for _ in range(nodes):
                stand.add()
            await stand.until_ready()
            yield stand
        finally:
            for node in stand.nodes:
                await node.close()


@contextlib.asynccontextmanager
async def small_mesh(folder: Path, *, nodes: int = 2, **settings: Any) -> AsyncIterator[MeshStand]:
    """A mesh without etcd: a node that only routes keeps the store for all; it is the first."""
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - nothing runs yet
    with tempfile.TemporaryDirectory(prefix="mesh-") as sockets:
        no_etcd = Etcd(folder / "etcd", 0, 0)
        stand = MeshStand(folder, Path(sockets), no_etcd, _subnet(), "memory", "", **settings)
        try:
            keeper = stand.add(has_runtime=False)
            stand.store = f"peer:{keeper.internal}"
            for _ in range(nodes):
                stand.add()
            await stand.until_ready()
            yield stand
        finally:
            for node in stand.nodes:
                await node.close()


def _etcd(folder: Path, subnet: str, lab: Lab | None) -> Etcd:
    port, peer_port = free_ports(2)
    host = "127.0.0.1" if lab is None else f"{subnet}.2"
    return Etcd(folder, port, peer_port, arguments=ALONE, host=host, enter=_enter(lab, host))


def _enter(lab: Lab | None, host: str) -> list[str]:
    return [] if lab is None else lab.enter(host)


def _subnet() -> str:
    """A part of 127/8 that nobody uses."""
    while True:
        subnet = f"127.{random.randrange(1, 255)}.{random.randrange(255)}"
        with socket.socket() as probe:
            if probe.connect_ex((f"{subnet}.10", PUBLIC)):
                return subnet
