"""Joins the two halves of a node, the mesh's engine and the router, and runs them as one."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mesh.agent.engine import Node
from mesh.agent.holdings import Identity
from mesh.ops.clock import monotonic_s
from mesh.registry.port import Registry
from mesh.runtime.port import Runtime
from mesh.wire.resources import Endpoints
from router.forward import Forwarder
from router.management import Management, ManagementServer
from router.operations import OperationsServer
from router.port import Mesh
from router.route import Router
from router.server import PublicServer, ServerLimits
from router.stream import Streams
from router.waiting import Limits, WaitingRoom

log = logging.getLogger(__name__)

QUIET_S = 0.1
ANY_HOST = ("0.0.0.0", "[::]", "127.0.0.1", "")  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a node listens. `grace_s`: how long what is in flight may take when it stops."""

    public: str = "0.0.0.0:8033"
    management: str = "127.0.0.1:8034"
    operations: str = "127.0.0.1:2112"
    server: ServerLimits = field(default_factory=ServerLimits)
    grace_s: float = 30.0
    waiting: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that listens, on the ports that it got."""

    node: Node
    management: Management
    port: int
    management_port: int
    operations_port: int


@asynccontextmanager
async def running_node(
    identity: Identity, registry: Registry, runtime: Runtime, doors: Doors
) -> AsyncIterator[RunningNode]:
    """A node for as long as the context lasts; leaving it drains and stops it.

    Raises CannotListen.
    """
    node = Node(identity, registry, runtime)
    waiting = WaitingRoom(node.resolve, doors.waiting)
    forwarder = Forwarder()
    mesh = Mesh(node.routes, node.resolve, node.recheck, node.is_model_ready, lambda: node.is_ready)
    router = Router(mesh, waiting, forwarder)
    streams = Streams(router, forwarder)
    public = PublicServer(router, streams, mesh, doors.server)
    management = Management(node, registry, Endpoints(_endpoint(doors.public)))
    internal = ManagementServer(management)
    operations = OperationsServer(lambda: why_not_ready(node))
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(node.run()),
            group.create_task(_tell_health(node, public)),
        ]
        try:
            await node.follower.wait_synced()
            operations_port = await operations.start(doors.operations)
            management_port = await internal.start(doors.management)
            port = await public.start(doors.public)
            yield RunningNode(node, management, port, management_port, operations_port)
        finally:
            node.drain()
            await _let_finish(public, doors.grace_s)
            await internal.stop()
            await operations.stop()
            for task in background:
                task.cancel()
            await streams.close()
            await waiting.close()
            await forwarder.close()


def why_not_ready(node: Node) -> str:
    """Why the node would not serve a new request, in words; empty where it would."""
    if node.is_ready:
        return ""
    return "the node is draining" if node.is_draining else "the runtime is not ready"


async def _tell_health(node: Node, public: PublicServer) -> None:
    while True:
        await public.tell_health(is_ready=node.is_ready)
        await node.state_changed()


async def _let_finish(public: PublicServer, grace_s: float) -> None:
    """Stops the door once nothing was in flight for a moment.

    A server that stops cancels callers whose handler has not begun: hence the quiet moment.
    """
    until_s = monotonic_s() + grace_s
    quiet_since_s = monotonic_s()
    while monotonic_s() < until_s and monotonic_s() - quiet_since_s < QUIET_S:
        await asyncio.sleep(QUIET_S / 10)
        if public.door.in_flight:
            quiet_since_s = monotonic_s()
    await public.stop(max(0.0, until_s - monotonic_s()))


def _endpoint(address: str) -> str:
    """The address that clients on this machine use."""
    host, _, port = address.rpartition(":")
    return f"grpc://{'localhost' if host in ANY_HOST else host}:{port}"
