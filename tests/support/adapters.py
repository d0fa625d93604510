"""A running adapter over ports of the test's choice, its client, and fakes of what is behind it.

The fakes hold and write what the real ones would; they do not imitate error texts or timing.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mesh.adapters.errors import InvalidModel, LoadFailed, ServerGone, UnloadFailed
from mesh.adapters.folders import remove
from mesh.adapters.main import serve_models
from mesh.adapters.port import FileSource, KeyChanges, LoadRequest, ModelServer, Progress
from mesh.core.ids import ModelId
from mesh.ops.settings import AdapterSettings
from mesh.ops.tasks import Tasks
from mesh.storage.port import StorageError
from mesh.storage.pull import Pulled
from mesh.storage.transfer import PullRequest
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import model_runtime_pb2_grpc as spi_grpc
from mesh.wire.pb import wml_adapter_pb2 as events_pb
from mesh.wire.pb import wml_adapter_pb2_grpc as events_grpc

READY = spi.RuntimeStatusResponse.READY
STARTING = spi.RuntimeStatusResponse.STARTING
NODE = "node-1"
MB = 1_000_000
# The first attempt may come before the socket.
AT_ONCE = (("grpc.initial_reconnect_backoff_ms", 10), ("grpc.min_reconnect_backoff_ms", 10))


@dataclass
class FakePuller:
    """`files` by path: a name and bytes each; one file is a single object, more are a folder.

    A path in `failures` is refused; one in `gates` waits, with something on disk already.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    failures: dict[str, StorageError] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    pulls: list[PullRequest] = field(default_factory=list)
    at_gate: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    peak: int = 0

    async def pull(
        self, request: PullRequest, target: Path, progress: Progress | None = None
    ) -> Pulled:
        self.pulls.append(request)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            return await self._pull(request, target, progress or (lambda done, total: None))
        finally:
            self.under_way -= 1

    async def _pull(self, request: PullRequest, target: Path, progress: Progress) -> Pulled:
        if error := self.failures.get(request.path):
            raise error
        files = self.files.get(request.path, {Path(request.path).name: b"x" * 100})
        total_bytes = sum(len(content) for content in files.values())
        await asyncio.to_thread(_write_all, target, files)
        for done_bytes in range(total_bytes):
            progress(done_bytes, total_bytes)
        if gate := self.gates.get(request.path):
            self.at_gate.set()
            await gate.wait()
        is_single = len(files) == 1 and "/" not in next(iter(files))
        path = target / next(iter(files)) if is_single else target
        schema = None
        if request.schema_path:
            schema = target / "_schema.json"
            await asyncio.to_thread(_write_all, target, {schema.name: self.files["schema"]["s"]})
        return Pulled(path, total_bytes, len(files), schema)


@dataclass
class FakeModelServer:
    """Holds ids; a path in `broken` fails to load, one id in `gates` waits, even if cancelled."""

    root: Path
    broken: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    loads: Counter[str] = field(default_factory=Counter)
    unloads: Counter[str] = field(default_factory=Counter)
    is_up: bool = True
    at_gate: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _going_on: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _tasks: Tasks = field(default_factory=Tasks)

    def lay_out(self, request: LoadRequest, pulled: Pulled, folder: Path) -> None:
        if request.type.name != "sklearn":
            raise InvalidModel("modelKey.model_type.name", f"no {request.type.name!r} here")
        (self.root / "_fake").mkdir(exist_ok=True)
        folder.rename(self.root / "_fake" / request.model)

    def remove(self, model: ModelId) -> None:
        remove(self.root / "_fake" / model)

    def laid_out(self) -> frozenset[ModelId]:
        return frozenset(ModelId(path.name) for path in (self.root / "_fake").glob("*"))

    async def load(self, model: ModelId) -> None:
        self._check_up()
        self.loads[model] += 1
        going = self._going_on[model] = self._tasks.spawn(self._load(model), "fake-load")
        await asyncio.shield(going)
        if model in self.broken:
            raise LoadFailed("the fake", "it is broken")
        self._check_up()

    async def unload(self, model: ModelId) -> None:
        if going := self._going_on.pop(model, None):
            await asyncio.wait([going])
        self._check_up()
        self.unloads[model] += 1
        if model in self.stubborn:
            raise UnloadFailed("the fake", "it will not")
        self.held.discard(model)

    async def has(self, model: ModelId) -> bool:
        self._check_up()
        return model in self.held

    async def index(self) -> frozenset[ModelId]:
        self._check_up()
        return frozenset(ModelId(model) for model in self.held)

    async def is_ready(self) -> bool:
        return self.is_up

    @property
    def is_connected(self) -> bool:
        return self.is_up

    async def until_lost(self) -> None:
        await self._gone.wait()
        self._gone.clear()

    async def close(self) -> None:
        await self._tasks.close()

    def die(self) -> None:
        self.is_up = False
        self.held.clear()
        self._gone.set()

    def _check_up(self) -> None:
        if not self.is_up:
            raise ServerGone("the fake")

    async def _load(self, model: ModelId) -> None:
        if gate := self.gates.get(model):
            self.at_gate.set()
            await gate.wait()
        if self.is_up:
            self.held.add(model)


class FakeKeys:
    """Says a key's change when told to."""

    def __init__(self) -> None:
        self.changed: asyncio.Queue[str] = asyncio.Queue()

    async def changes(self) -> AsyncIterator[str]:
        while True:
            yield await self.changed.get()


class AdapterClient:
    """What a node would send."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.spi: Any = spi_grpc.ModelRuntimeStub(channel)
        self.events: Any = events_grpc.AdapterEventsStub(channel)

    def load(self, model: str, path: str = "sklearn/a.joblib", **key: object) -> Any:
        """The call, to be awaited or cancelled; `key` replaces fields of the modelKey."""
        return self.spi.loadModel(load_request(model, path, **key), timeout=60)

    async def unload(self, model: str) -> None:
        await self.spi.unloadModel(spi.UnloadModelRequest(modelId=model), timeout=60)

    async def status(self, node: str | None = NODE) -> Any:
        metadata = () if node is None else (("wml-node", node),)
        return await self.spi.runtimeStatus(
            spi.RuntimeStatusRequest(), metadata=metadata, timeout=30
        )

    async def ready(self, node: str | None = NODE) -> Any:
        """Asks until READY."""
        answers: list[Any] = []

        async def is_ready() -> bool:
            answers.append(await self.status(node))
            return bool(answers[-1].status == READY)

        await eventually(is_ready)
        return answers[-1]

    async def watch(self) -> Any:
        """A stream of events that misses nothing from now on."""
        call = self.events.Watch(events_pb.WatchRequest())
        await call.initial_metadata()
        return call


def load_request(model: str, path: str = "sklearn/a.joblib", **key: object) -> Any:
    fields = {"storage_key": "store", "bucket": "b", "model_type": {"name": "sklearn"}, **key}
    given = {name: value for name, value in fields.items() if value is not None}
    return spi.LoadModelRequest(
        modelId=model, modelType="sklearn", modelPath=path, modelKey=json.dumps(given)
    )


def settings_for(root: Path, socket: Path, **fields: Any) -> AdapterSettings:
    values = {
        "adapter_socket": socket,
        "root_model_dir": root,
        "storage_config_dir": root / "no-keys",
        "container_mem_req_bytes": 1000 * MB,
        "mem_buffer_bytes": 100 * MB,
        "loading_concurrency": 4,
        **fields,
    }
    return AdapterSettings(**values)


@asynccontextmanager
async def running_adapter(
    settings: AdapterSettings, server: ModelServer, source: FileSource, keys: KeyChanges
) -> AsyncIterator[AdapterClient]:
    """One life of an adapter, stopped as SIGTERM would at the end of the context."""
    stop = asyncio.Event()
    tasks = Tasks()
    life = tasks.spawn(serve_models(settings, stop, "the fake", server, source, keys), "adapter")
    try:
        target = f"unix:{settings.adapter_socket}"
        async with grpc.aio.insecure_channel(target, options=AT_ONCE) as channel:
            await channel.channel_ready()
            yield AdapterClient(channel)
            stop.set()
            await asyncio.wait([life])
            life.result()
    finally:
        await tasks.close()


async def eventually(condition: Callable[[], Any]) -> None:
    """Polls an async condition, with a deadline."""
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


def files_below(root: Path, *, apart: Iterable[str] = ("_node",)) -> set[str]:
    """What an adapter has left on disk, folders included; its own empty ones do not count."""
    own = {"_pulling", "_loaded", "_fake", "_files", "_mlserver_models", *apart}
    found = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    return found - own


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    """The status by which a call fails, and its text."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("the call did not fail")


def _write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass
class Parts:
    """An adapter's fakes, and the lives that it has over them one after the other."""

    root: Path
    socket: Path
    server: FakeModelServer
    puller: FakePuller = field(default_factory=FakePuller)
    keys: FakeKeys = field(default_factory=FakeKeys)

    def life(self, **fields: Any) -> Any:
        """A running adapter, as a context; `fields` are settings."""
        settings = settings_for(self.root, self.socket, **fields)
        return running_adapter(settings, self.server, self.puller, self.keys)

    def left(self) -> set[str]:
        return files_below(self.root)


@asynccontextmanager
async def parts_in(folder: Path) -> AsyncIterator[Parts]:
    """The socket is apart: its path must be short."""
    root = folder / "models"
    server = FakeModelServer(root)
    with tempfile.TemporaryDirectory(prefix="adapter-") as sockets:
        yield Parts(root, Path(sockets) / "a.sock", server)
    await server.close()
