"""Which nodes can be reached, for those that were spoken to: known at once, not after their lease.

A node is down from a failed connection, or a connection that is lost, until it says hello again;
from its own farewell it is down for good. A node that nobody spoke to counts as up: the first who
tries finds out.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId
from mesh.core.records import NodeRecord
from mesh.ops.tasks import Tasks
from mesh.peers.port import Peers

log = logging.getLogger(__name__)

PROBE_S = 0.5


class Reach:
    """`on_change` is called with each node that went down, or came up."""

    def __init__(
        self, peers: Peers, nodes: Mapping[NodeId, NodeRecord], on_change: Callable[[NodeId], None]
    ) -> None:
        self._peers = peers
        self._nodes = nodes
        self._on_change = on_change
        self._down: set[NodeId] = set()
        self._watched: set[NodeId] = set()
        self._left: set[NodeId] = set()
        self._tasks = Tasks()

    @property
    def down(self) -> frozenset[NodeId]:
        """Those that cannot be reached."""
        return frozenset(self._down)

    def is_down(self, node: NodeId) -> bool:
        return node in self._down

    def use(self, node: NodeId) -> None:
        """This node will be spoken to: from now on it is known whether it answers."""
        record = self._nodes.get(node)
        if record is not None and node not in self._watched:
            self._watched.add(node)
            self._tasks.spawn(self._watch(node, record.address), f"watch {node}")

    def lost(self, node: NodeId) -> None:
        """A connection to it failed."""
        self.use(node)
        if node in self._watched:
            self._set_down(node)

    def left(self, node: NodeId) -> None:
        """It says that it has left: this life of it is down for good."""
        self.use(node)
        if node in self._watched:
            self._left.add(node)
            self._set_down(node)

    async def answers(self, node: NodeId, address: str) -> bool:
        """Whether this life of the node answers at the address, now."""
        try:
            return await self._peers.hello(address) == node
        except Unavailable:
            return False

    async def close(self) -> None:
        await self._tasks.close()

    async def _watch(self, node: NodeId, address: str) -> None:
        """Ends when the node's record and, where no other life is there, its connection do."""
        while (record := self._nodes.get(node)) is not None:
            address = record.address
            if await self.answers(node, address):
                self._set_up(node)
                await self._peers.until_lost(address)
                if await self.answers(node, address):
                    continue  # only the connection was renewed
            self._set_down(node)
            await asyncio.sleep(PROBE_S)
        for known in (self._watched, self._down, self._left):
            known.discard(node)
        if self._is_vacant(address):
            await self._peers.until_lost(address)  # it may be answering still
            if self._is_vacant(address):
                await self._peers.forget(address)

    def _is_vacant(self, address: str) -> bool:
        return not any(other.address == address for other in self._nodes.values())

    def _set_down(self, node: NodeId) -> None:
        if node not in self._down:
            if node in self._left:
                log.info("node has left", extra={"peer": node})
            else:
                log.warning("node cannot be reached", extra={"peer": node})
            self._down.add(node)
            self._on_change(node)

    def _set_up(self, node: NodeId) -> None:
        if node in self._down and node not in self._left:
            log.info("node can be reached again", extra={"peer": node})
            self._down.discard(node)
            self._on_change(node)
