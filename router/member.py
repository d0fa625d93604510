"""A node of a mesh: one process, with an adapter and a runtime beside it, or none."""

import asyncio
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass

from mesh.agent.holdings import Identity
from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId
from mesh.core.policy import DEFAULT, Policy
from mesh.ops.collector import sparing
from mesh.ops.logs import bound
from mesh.ops.settings import InvalidSettings
from mesh.peers.tls import UnusableTls
from mesh.runtime.client import GrpcRuntime
from mesh.runtime.liveness import SILENCE_S
from mesh.runtime.none import NoRuntime
from mesh.runtime.port import Runtime
from mesh.wire.runtime_manifest import ServingRuntimeManifest
from router.node import Doors, RunningNode, running_node
from router.serve import StartFailed
from router.server import CannotListen
from router.stores import StoreSettings, opened

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuntimeBeside:
    """`adapter` serves the model runtime SPI, `data` inference; both are gRPC targets.

    `silence_s`: after so long without an answer it counts as lost.
    """

    manifest: ServingRuntimeManifest
    adapter: str
    data: str
    silence_s: float = SILENCE_S


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """What `node` is told. `name` is what its id begins with, `address` where peers reach it.

    `runtime` is None for a node that only routes.
    """

    name: str
    store: StoreSettings
    runtime: RuntimeBeside | None
    address: str
    doors: Doors
    zone: str = ""
    labels: frozenset[str] = frozenset()
    policy: Policy = DEFAULT


async def member(settings: MemberSettings, on_start: Callable[[RunningNode], None]) -> None:
    """Runs until SIGTERM or SIGINT; `on_start` is called once everything listens.

    Raises StartFailed.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with ExitStack() as until_left:
        async with joined(settings) as running:
            until_left.enter_context(sparing())
            on_start(running)
            await stop.wait()
            log.info("leaving")


@asynccontextmanager
async def joined(settings: MemberSettings) -> AsyncIterator[RunningNode]:
    """A node in the mesh for as long as the context lasts. Raises StartFailed."""
    beside = settings.runtime
    identity = Identity(
        # A new life is another node: a past life's copies are never taken for its own.
        NodeId(f"{settings.name}-{secrets.token_hex(4)}"),
        None if beside is None else beside.manifest.to_spec(),
        address=settings.address,
        zone=settings.zone,
        labels=settings.labels,
        policy=settings.policy,
    )
    runtime: Runtime = NoRuntime()
    if beside is not None:
        runtime = GrpcRuntime(beside.adapter, beside.data, identity.id, silence_s=beside.silence_s)
    async with AsyncExitStack() as stack:
        try:
            if settings.doors.tls is not None:
                settings.doors.tls.check()
            store = await stack.enter_async_context(opened(settings.store, settings.doors.tls))
        except (InvalidSettings, Unavailable, UnusableTls) as error:
            raise StartFailed(str(error)) from error
        node = running_node(
            identity,
            store.registry,
            runtime,
            settings.doors,
            services=store.services,
            opening=store.opening,
        )
        try:
            with bound(node=identity.id):
                async with node as running:
                    yield running
        except* CannotListen as errors:
            raise StartFailed(str(errors.exceptions[0])) from errors
