"""One machine in the role of a cluster: a node, an adapter and the runtime's process.

They are started from the same files that Kubernetes reads, over the memory store, whose Predictors
survive a restart in the state folder.
"""

import asyncio
import fcntl
import logging
import secrets
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from mesh.agent.holdings import Identity
from mesh.core.errors import MeshError
from mesh.core.ids import NodeId, PredictorName
from mesh.local.plan import LocalRuntime, declared_ports, plan
from mesh.local.process import CannotStart
from mesh.local.supervisor import Supervisor
from mesh.ops.logs import bound
from mesh.registry.journal import FileJournal
from mesh.registry.memory import MemoryRegistry
from mesh.runtime.client import GrpcRuntime
from mesh.runtime.liveness import SILENCE_S
from mesh.wire import records
from mesh.wire.documents import InvalidManifest
from mesh.wire.manifests import parse_predictor
from mesh.wire.runtime_manifest import ServingRuntimeManifest
from router.node import Doors, RunningNode, running_node
from router.server import CannotListen

log = logging.getLogger(__name__)

KEPT = (records.PREDICTORS, records.MODELS)


class StartFailed(Exception):
    """Why it cannot start, in words for the person who started it."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `serve` is told.

    `state`: the folder that survives a restart; `runtime_bin`: where the runtime's programs are;
    `storage_config`: a folder with a JSON file a key; `predictors`: created at start if missing;
    `silence_s`: after so long without an answer the runtime counts as lost.
    """

    runtime: ServingRuntimeManifest
    runtime_bin: Path
    storage_config: Path
    state: Path
    doors: Doors
    predictors: Sequence[object] = ()
    silence_s: float = SILENCE_S


async def serve(settings: ServeSettings, on_start: Callable[[RunningNode], None]) -> None:
    """Serves until SIGTERM or SIGINT; `on_start` is called once everything listens.

    Raises StartFailed.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(settings) as running:
        on_start(running)
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def serving(settings: ServeSettings) -> AsyncIterator[RunningNode]:
    """Everything up for as long as the context lasts. Raises StartFailed."""
    async with AsyncExitStack() as stack:
        _take_state(settings.state, stack)
        # Not in the state folder: the path of a socket may have 107 bytes.
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="wml-serving-"))
        address = Path(sockets) / "adapter.sock"
        local = _plan(settings, address)
        supervisor = Supervisor((local.adapter, local.server), settings.state / "logs")
        stack.push_async_callback(supervisor.stop)
        try:
            await supervisor.start()
        except CannotStart as error:
            raise StartFailed(str(error)) from error
        log.info("runtime started", extra={"data_address": local.data_address})
        running = await stack.enter_async_context(_node(settings, local.data_address, address))
        await _create_missing(settings, running)
        yield running


def _take_state(state: Path, stack: AsyncExitStack) -> None:
    """The state folder is ours alone for as long as the stack lasts."""
    state.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((state / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StartFailed(f"{state} is in use by another wml-serving serve") from error


def _plan(settings: ServeSettings, address: Path) -> LocalRuntime:
    models = settings.state / "models"
    models.mkdir(exist_ok=True)
    try:
        return plan(
            settings.runtime,
            models_dir=models,
            socket=address,
            storage_config_dir=settings.storage_config,
            ports=_free_ports(declared_ports(settings.runtime)),
            runtime_bin=settings.runtime_bin,
        )
    except InvalidManifest as error:
        raise StartFailed(f"runtime {settings.runtime.metadata.name}: {error.message}") from error


@asynccontextmanager
async def _node(
    settings: ServeSettings, data_address: str, adapter: Path
) -> AsyncIterator[RunningNode]:
    journal = FileJournal(settings.state / "store", KEPT)
    registry = MemoryRegistry(initial=journal.load(), journal=journal)
    identity = Identity(NodeId(f"node-{secrets.token_hex(4)}"), settings.runtime.to_spec())
    runtime = GrpcRuntime(
        f"unix:{adapter}", data_address, identity.id, silence_s=settings.silence_s
    )
    try:
        with bound(node=identity.id):
            async with running_node(identity, registry, runtime, settings.doors) as running:
                yield running
    except* CannotListen as errors:
        raise StartFailed(str(errors.exceptions[0])) from errors
    finally:
        await registry.close()


async def _create_missing(settings: ServeSettings, running: RunningNode) -> None:
    for document in settings.predictors:
        name = PredictorName(parse_predictor(document).name)
        if name not in running.node.view.predictors:
            try:
                await running.management.apply(document)
            except MeshError as error:
                raise StartFailed(f"predictor {name}: {error.message}") from error
            log.info("predictor created", extra={"predictor": name})


def _free_ports(declared: Sequence[int]) -> dict[int, int]:
    """A free loopback port for each declared one, so that nothing else on the machine is met."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in declared]
    try:
        return {port: server.getsockname()[1] for port, server in zip(declared, held, strict=True)}
    finally:
        for server in held:
            server.close()
