"""Joins the two halves of a node, the mesh's engine and the router, and runs them as one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc.aio

from mesh.agent.engine import Node
from mesh.agent.holdings import Identity
from mesh.agent.seeded import until_seeded
from mesh.ops.clock import monotonic_s
from mesh.ops.memory import give_back
from mesh.peers.client import GrpcPeers
from mesh.peers.links import Links
from mesh.peers.tls import NodeTls
from mesh.registry.port import Registry
from mesh.runtime.port import Runtime
from mesh.wire.dataplane import NONE as NO_DATAPLANE
from mesh.wire.dataplane import Dataplane
from mesh.wire.resources import Endpoints
from router.administration import Administration
from router.forward import Forwarder
from router.internal import InternalServer, PassedOn, PeerService
from router.listening import connections, refuse_connections
from router.loads import Loads
from router.management import Management
from router.model_mesh import ModelMesh
from router.operations import OperationsServer
from router.port import Mesh
from router.rest.server import RestServer
from router.route import Router
from router.scrape import Scrape
from router.server import PublicServer, ServerLimits
from router.steps import Steps
from router.stream import Streams
from router.usage import Usages
from router.waiting import Limits, WaitingRoom

log = logging.getLogger(__name__)

Register = Callable[[grpc.aio.Server], None]

QUIET_S = 0.1
# Peers may take so long over the calls that they have open to a node that has left.
LEFT_LIMIT_S = 10.0
# What one that could not be told passes on: nothing for so long, and it has learnt.
LEFT_S = 0.5
# gRPC ends a connection within a tenth of its age.
AGE_SLACK = 1.1
# A client whose connection has aged closes it once its calls have ended: at once, or later where
# its machine has much to do.
LET_GO_S = 10.0
ANY_HOST = ("0.0.0.0", "[::]", "127.0.0.1", "")  # noqa: S104 - recognised, not bound


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a node listens. `grace_s`: how long what is in flight may take when it stops.

    `rest`: where V2 over HTTP is; empty: nowhere.
    `dataplane`: RPCs that are routed besides KServe's.
    `connection_age_s`: how old a client's connection gets, where another node can take over from
    this one; None where there is no other. `hand_over_s`: how long copies may take to be loaded
    elsewhere before this node stops. `linger_s`: how long a node that says that it leaves lets in
    clients whom nobody has told yet.
    """

    public: str = "0.0.0.0:8033"
    management: str = "127.0.0.1:8034"
    operations: str = "127.0.0.1:2112"
    server: ServerLimits = field(default_factory=ServerLimits)
    grace_s: float = 30.0
    waiting: Limits = field(default_factory=Limits)
    connection_age_s: float | None = None
    dataplane: Dataplane = NO_DATAPLANE
    hand_over_s: float = 60.0
    linger_s: float = 0.0
    tls: NodeTls | None = None
    rest: str = ""


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that listens, on the ports that it got; `rest_port` is 0 where there is no REST."""

    node: Node
    management: Management
    port: int
    management_port: int
    operations_port: int
    rest_port: int


@asynccontextmanager
async def running_node(
    identity: Identity,
    registry: Registry,
    runtime: Runtime,
    doors: Doors,
    *,
    services: Iterable[Register] = (),
    opening: Callable[[Node], Awaitable[None]] | None = None,
) -> AsyncIterator[RunningNode]:
    """A node for as long as the context lasts; leaving it drains and stops it.

    `services` are further ones for other nodes; `opening` is awaited between the two doors, that
    for nodes and that for clients. Raises CannotListen.
    """
    links = Links(doors.tls)
    node = Node(identity, registry, runtime, GrpcPeers(links))
    metrics = node.holdings.metrics
    waiting = WaitingRoom(node.resolve, doors.waiting, metrics)
    forwarder = Forwarder(links, metrics)
    router = Router(_mesh(node), waiting, forwarder)
    streams = Streams(router, forwarder)
    limits = replace(doors.server, connection_age_s=doors.connection_age_s)
    public = PublicServer(router, streams, _mesh(node), limits, metrics, doors.dataplane)
    rest = RestServer(router, _mesh(node), metrics, doors.server, doors.grace_s)
    administration = Administration(node, links.channel)
    steps = Steps(node, registry, administration)
    loads = Loads(node)
    usages, endpoints = Usages(node, links.channel), _endpoints(doors)
    management = Management(node, steps, administration, usages, endpoints)
    model_mesh = ModelMesh(node, steps, loads)
    passed_on = PassedOn(node, forwarder, is_guarded=doors.tls is not None)
    own = (management.register, model_mesh.register, PeerService(node).register)
    internal = InternalServer((*own, *services), passed_on, doors.server, doors.tls)
    scrape = Scrape(node, waiting, lambda: public.door.in_flight + rest.in_flight)
    operations = OperationsServer(
        lambda: why_not_ready(node), scrape.text, lambda: node.is_draining
    )
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(node.run()),
            group.create_task(_tell_health(node, public)),
        ]
        port = None
        try:
            await node.follower.wait_synced()
            give_back()
            management_port = await internal.start(doors.management)
            if opening is not None:
                await opening(node)
            if identity.address:
                await until_seeded(node.view, node.follower, registry)
            port = await public.start(doors.public)
            rest_port = await rest.start(doors.rest) if doors.rest else 0
            operations_port = await operations.start(doors.operations)  # ready: the doors are open
            yield RunningNode(node, management, port, management_port, operations_port, rest_port)
        finally:
            let_in_until_s = monotonic_s() + (doors.linger_s if port else 0.0)
            await node.leave(doors.hand_over_s if port else 0.0)
            await asyncio.sleep(max(0.0, let_in_until_s - monotonic_s()))
            await _leave_clients(public, rest, port, doors)
            await node.withdraw()
            await _leave_peers(internal, passed_on, node)
            await operations.stop()
            for task in background:
                task.cancel()
            await streams.close()
            await waiting.close()
            await loads.close()
            await forwarder.close()
            await links.close()


def _mesh(node: Node) -> Mesh:
    return Mesh(
        routes=node.routes,
        pick=node.pick,
        is_fresh=node.pulse.is_fresh,
        resolve=node.resolve,
        recheck=node.recheck,
        unreachable=node.unreachable,
        not_here=node.not_here,
        is_model_ready=node.is_model_ready,
        is_ready=lambda: node.is_ready,
    )


def why_not_ready(node: Node) -> str:
    """Why the node would not serve a new request, in words; empty where it would."""
    if node.is_ready:
        return ""
    return "the node is draining" if node.is_draining else "the runtime is not ready"


async def _tell_health(node: Node, public: PublicServer) -> None:
    while True:
        await public.tell_health(is_ready=node.is_ready)
        await node.state_changed()


async def _leave_clients(
    public: PublicServer, rest: RestServer, port: int | None, doors: Doors
) -> None:
    """Stops the doors for clients once these have gone elsewhere, or nothing was in flight."""
    await rest.leave()
    if port and doors.connection_age_s is not None:
        refuse_connections(port)
        until_s = monotonic_s() + doors.connection_age_s * AGE_SLACK + LET_GO_S
        while connections(port) and monotonic_s() < until_s:  # noqa: ASYNC110 - the kernel's
            await asyncio.sleep(QUIET_S)
    await _quiet(lambda: public.door.in_flight + rest.in_flight, QUIET_S, doors.grace_s)
    await public.stop(doors.grace_s)
    await rest.stop()


async def _leave_peers(internal: InternalServer, passed_on: PassedOn, node: Node) -> None:
    """Stops the door for peers once none of them has a call open.

    One that cannot be told may still pass some on, and learns by a refusal for each model: a call
    that is refused goes elsewhere, and one that a server cancels as it stops is lost.
    """
    left_s = monotonic_s()
    if node.identity.address and not await node.bid_farewell(LEFT_LIMIT_S):
        await asyncio.sleep(LEFT_S)
        while not passed_on.is_quiet(LEFT_S) and monotonic_s() < left_s + LEFT_LIMIT_S:  # noqa: ASYNC110
            await asyncio.sleep(LEFT_S / 10)
    await internal.stop(None)


async def _quiet(in_flight: Callable[[], int], quiet_s: float, limit_s: float) -> None:
    """Returns once nothing was in flight for a while, or the limit has passed.

    A server that stops cancels callers whose handler has not begun: hence the quiet while.
    """
    until_s = monotonic_s() + limit_s
    quiet_since_s = monotonic_s()
    while monotonic_s() < until_s and monotonic_s() - quiet_since_s < quiet_s:
        await asyncio.sleep(quiet_s / 10)
        if in_flight():
            quiet_since_s = monotonic_s()


def _endpoints(doors: Doors) -> Endpoints:
    """The addresses that clients on this machine use."""
    rest = f"http://{_reachable(doors.rest)}" if doors.rest else ""
    return Endpoints(f"grpc://{_reachable(doors.public)}", rest)


def _reachable(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{'localhost' if host in ANY_HOST else host}:{port}"
