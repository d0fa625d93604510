"""The store that a node of a mesh uses: etcd, its own memory that others use too, or that of
another node.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from mesh.agent.engine import Node
from mesh.ops.clock import monotonic_s, wall_s
from mesh.ops.settings import InvalidSettings
from mesh.peers.links import Links
from mesh.peers.tls import NodeTls
from mesh.registry.etcd import EtcdRegistry
from mesh.registry.etcd_settings import EtcdSettings
from mesh.registry.memory import MemoryRegistry
from mesh.registry.peer import PeerRegistry
from mesh.registry.port import Registry
from mesh.registry.served import RegistryService
from router.node import Register

OWN = "memory"
PEER = "peer:"
# A store that has just begun knows nothing: other nodes notice it within a second or two, and say
# what they know. Then it is waited for until nothing has come for a while.
SETTLE_S = 3.0
QUIET_S = 0.5
SETTLE_LIMIT_S = 15.0
LOOK_S = 0.05
# Microseconds: revisions of a later life are higher, unless one made more than a million a second.
EPOCHS_PER_S = 1_000_000


@dataclass(frozen=True, slots=True)
class OwnMemory:
    """This node keeps the store, and serves it to the others."""


@dataclass(frozen=True, slots=True)
class PeerMemory:
    """The node at this address keeps it."""

    address: str


StoreSettings = EtcdSettings | OwnMemory | PeerMemory


@dataclass(frozen=True, slots=True)
class Store:
    """`services` are for the other nodes; `opening`, if any, is awaited before clients get in."""

    registry: Registry
    services: tuple[Register, ...] = ()
    opening: Callable[[Node], Awaitable[None]] | None = None


def store_settings(text: str, prefix: str = "") -> StoreSettings:
    """What `--store` and `--store-prefix` say. Raises InvalidSettings."""
    if text == OWN:
        return OwnMemory()
    if not text.startswith(PEER):
        settings = EtcdSettings.load(text)
        return settings.below(prefix) if prefix else settings
    address = text.removeprefix(PEER)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidSettings((f"--store: {PEER}HOST:PORT, not {text}",))
    return PeerMemory(address)


@asynccontextmanager
async def opened(settings: StoreSettings, tls: NodeTls | None) -> AsyncIterator[Store]:
    """The store for as long as the context lasts. Raises InvalidSettings, Unavailable."""
    match settings:
        case OwnMemory():
            memory = MemoryRegistry(epoch=round(wall_s() * EPOCHS_PER_S))
            store = Store(memory, (RegistryService(memory).register,), _settled)
        case PeerMemory(address=address):
            store = Store(await PeerRegistry.connect(Links(tls), address))
        case EtcdSettings():
            store = Store(await EtcdRegistry.connect(settings))
    try:
        yield store
    finally:
        await store.registry.close()


async def _settled(node: Node) -> None:
    """Returns once the other nodes, if there are any, have said what they know."""
    begun_s = changed_s = monotonic_s()
    seen = _known(node)
    while monotonic_s() - begun_s < SETTLE_LIMIT_S:
        await asyncio.sleep(LOOK_S)
        now = monotonic_s()
        if _known(node) != seen:
            seen, changed_s = _known(node), now
        if now - begun_s >= SETTLE_S and now - changed_s >= QUIET_S:
            return


def _known(node: Node) -> tuple[int, ...]:
    view = node.view
    return len(view.nodes), len(view.models), len(view.predictors), len(view.runtimes)
