"""The peers port in memory: nodes of one process speak to each other without sockets.

It does not imitate: connections (a node that is cut off fails at once), gRPC's own errors.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.agent.engine import Node
from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId, Revision
from mesh.peers.port import Ask, Memory, Outcome


@dataclass
class Network:
    """Who lives at which address. `cut` holds the pairs of addresses that cannot speak, in order.

    `frozen` addresses take what is said to them and do not answer.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    cut: set[tuple[str, str]] = field(default_factory=set)
    frozen: set[str] = field(default_factory=set)
    asked: list[tuple[str, Ask]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self, act: Callable[[], object]) -> None:
        """Does something to the network, and lets connections notice."""
        act()
        self.changed.set()
        self.changed = asyncio.Event()

    def is_open(self, source: str, target: str) -> bool:
        is_cut = (source, target) in self.cut or (target, source) in self.cut
        return target in self.nodes and target not in self.frozen and not is_cut


class FakePeers:
    """What one node says to the others."""

    def __init__(self, network: Network, own: str) -> None:
        self._network = network
        self._own = own

    async def hello(self, address: str) -> NodeId:
        await self._reach(address)
        node = self._network.nodes[address]
        if node.has_left:
            raise Unavailable(f"node at {address} has left")
        return node.identity.id

    async def ensure_loaded(self, address: str, ask: Ask) -> Outcome:
        self._network.asked.append((address, ask))
        await self._reach(address)
        return await self._network.nodes[address].ensure_loaded(ask)

    async def recollect(self, address: str, store_id: str, revision: Revision) -> Memory | None:
        await self._reach(address)
        seen = self._network.nodes[address].memory.since(store_id, revision)
        return None if seen is None else Memory(seen[0], dict(seen[1]))

    async def farewell(self, address: str, node: NodeId) -> None:
        await self._reach(address)
        await self._network.nodes[address].let_go(node)

    async def until_lost(self, address: str) -> None:
        while self._network.is_open(self._own, address):
            await self._network.changed.wait()

    async def forget(self, address: str) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _reach(self, address: str) -> None:
        await asyncio.sleep(0.001)
        if address in self._network.frozen:
            await asyncio.sleep(1.0)
        if not self._network.is_open(self._own, address):
            raise Unavailable(f"node at {address} cannot be reached")
