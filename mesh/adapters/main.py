"""An adapter as a program: its parts put together, from settings to a socket."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mesh.adapters.events import Events
from mesh.adapters.flight import Tools
from mesh.adapters.folders import Folders
from mesh.adapters.mlserver import NAME, MLServer
from mesh.adapters.mlserver_layout import IMPLEMENTATIONS
from mesh.adapters.models import Models
from mesh.adapters.port import FileSource, KeyChanges, ModelServer
from mesh.adapters.secret_mirror import SecretMirror
from mesh.adapters.server import AdapterEvents, ModelRuntime, RuntimeFacts, listening
from mesh.kube.client import KubeClient, NoCluster, api_client
from mesh.ops.clock import monotonic_s, wall_s
from mesh.ops.settings import AdapterSettings, InvalidSettings
from mesh.ops.tasks import Tasks
from mesh.storage.disk import Disk
from mesh.storage.keys import StorageKeys
from mesh.storage.outage import Outages
from mesh.storage.pull import Puller

LOOPBACK = "127.0.0.1"

log = logging.getLogger(__name__)


def mlserver(settings: AdapterSettings) -> tuple[str, ModelServer]:
    """MLServer's name, and the server itself. Raises InvalidSettings."""
    further = _implementations(settings.mlserver_implementations)
    server = MLServer(
        f"{LOOPBACK}:{settings.runtime_port}",
        settings.root_model_dir,
        subdir=settings.mlserver_models_subdir,
        implementations={**IMPLEMENTATIONS, **further},
    )
    return NAME, server


# By the server type of a ServingRuntime, and the argument of `wml-serving adapter`.
SERVERS: Mapping[str, Callable[[AdapterSettings], tuple[str, ModelServer]]] = {"mlserver": mlserver}


def run_program(settings: AdapterSettings, server_type: str = "mlserver") -> None:
    """`run` as all that this process does: it ends here. Raises what `run` raises.

    Python would wait for its threads, and those of a stopped pull may be stuck in a read until the
    store's time limit. They own nothing any more: what they wrote is deleted.
    """
    asyncio.run(run(settings, server_type))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


async def run(settings: AdapterSettings, server_type: str = "mlserver") -> None:
    """Serves until SIGTERM or SIGINT.

    Raises InvalidSettings, or OSError for a folder or socket that cannot be made.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve_adapter(settings, stop, server_type)


async def serve_adapter(
    settings: AdapterSettings, stop: asyncio.Event, server_type: str = "mlserver"
) -> None:
    """Serves until `stop`: loads under way are then undone, what is loaded stays for our next life.

    Raises what `run` raises.
    """
    if server_type not in SERVERS:
        known = ", ".join(sorted(SERVERS))
        raise InvalidSettings((f"server type {server_type!r} is not known; there is {known}",))
    name, server = SERVERS[server_type](settings)
    mirroring = Tasks()
    try:
        if settings.storage_secret_name:
            await _mirror(settings, mirroring)
        keys = StorageKeys(settings.storage_config_dir)
        roots = [Path(root) for root in settings.local_storage_roots.split(":") if root]
        disk = Disk(settings.root_model_dir, settings.model_disk_bytes)
        puller = Puller(keys, disk=disk, local_roots=roots)
        files = Outages(puller, keys)
        await serve_models(settings, stop, name, server, files, files)
    finally:
        await mirroring.close()
        await server.close()


async def _mirror(settings: AdapterSettings, tasks: Tasks) -> None:
    """Follows the Secret from now on. Raises InvalidSettings."""
    try:
        api = await api_client(None)
    except NoCluster as error:
        raise InvalidSettings((f"STORAGE_SECRET_NAME: {error}",)) from error
    kube = KubeClient(api, wall_s)
    mirror = SecretMirror(
        kube, settings.pod_namespace, settings.storage_secret_name, settings.storage_config_dir
    )
    tasks.spawn(_closing(api, mirror), "mirror-secret")
    await mirror.first_sight()


async def _closing(api: Any, mirror: SecretMirror) -> None:
    async with api:
        await mirror.run()


async def serve_models(
    settings: AdapterSettings,
    stop: asyncio.Event,
    name: str,
    server: ModelServer,
    source: FileSource,
    keys: KeyChanges,
) -> None:
    """The same over ports of the caller's choice; `server` stays open."""
    events = Events(monotonic_s)
    tools = Tools(
        server=server,
        source=source,
        folders=Folders(settings.root_model_dir),
        events=events,
        slots=asyncio.Semaphore(settings.loading_concurrency),
        limit_s=settings.loadtime_timeout / 1000,
        size_multiplier=settings.modelsize_multiplier,
    )
    models = Models(name, tools, settings.default_modelsize)
    runtime = ModelRuntime(models, _facts(settings))
    watching = Tasks()
    watching.spawn(_watch_server(server, models, events), "watch-server")
    watching.spawn(_watch_keys(keys, events), "watch-keys")
    try:
        async with listening(settings.adapter_socket, runtime, AdapterEvents(models, events)):
            await stop.wait()
            log.info("adapter stopping")
            await models.close()
            events.close()
    finally:
        await watching.close()


async def _watch_server(server: ModelServer, models: Models, events: Events) -> None:
    while True:
        await server.until_lost()
        models.lost()
        events.runtime_lost()


async def _watch_keys(keys: KeyChanges, events: Events) -> None:
    async for key in keys.changes():
        log.info("storage key changed", extra={"key": key})
        events.key_changed(key)


def _facts(settings: AdapterSettings) -> RuntimeFacts:
    return RuntimeFacts(
        capacity_bytes=settings.capacity_bytes,
        max_loading=settings.loading_concurrency,
        load_timeout_ms=settings.loadtime_timeout,
        default_size_bytes=settings.default_modelsize,
        version=settings.runtime_version,
        model_concurrency=settings.limit_per_model_concurrency,
    )


def _implementations(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(item, str) for item in found.values()):
        problem = "MLSERVER_IMPLEMENTATIONS: must be a JSON object of type name to class name"
        raise InvalidSettings((problem,))
    return found
