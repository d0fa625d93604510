"""Nodes of one store that can be lost, each with a way to it of its own, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from mesh.agent.recall import decode
from mesh.agent.seeded import until_seeded
from mesh.core.ids import ModelId
from mesh.registry.follow import Past
from mesh.wire.records import PREDICTORS, SEEDED
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.fickle_registry import FickleRegistry, Way

NODES = 3


@dataclass
class Stand:
    """Nodes of one store, each with a way to it of its own."""

    store: FickleRegistry
    network: Network
    nodes: list[Engine]
    ways: list[Way]

    def freeze(self, number: int) -> None:
        self.ways[number].open.clear()
        address = self.nodes[number].node.identity.address
        self.network.change(lambda: self.network.frozen.add(address))

    def resume(self, number: int) -> None:
        self.ways[number].open.set()
        address = self.nodes[number].node.identity.address
        self.network.change(lambda: self.network.frozen.discard(address))

    async def settle(self, expected: dict[str, ModelId], within_s: float = 30.0) -> None:
        """Each node, and the store, comes to know these Predictors, and stays with them."""
        await until(lambda: self.views() == [expected] * NODES, within_s)
        await asyncio.sleep(60)
        assert self.views() == [expected] * NODES
        assert await self.stored() == expected.keys()

    def views(self) -> list[dict[str, ModelId]]:
        """The target of each Predictor, as each node sees it."""
        return [
            {str(name): it.target for name, it in node.node.view.predictors.items()}
            for node in self.nodes
        ]

    async def mark(self) -> Past:
        """What was known by who filled the store."""
        entry = await self.store.get(SEEDED)
        past = None if entry is None else decode(entry.value)
        assert past is not None
        return past

    async def stored(self) -> set[str]:
        entries = (await self.store.list(PREDICTORS)).entries
        return {entry.key.removeprefix(PREDICTORS) for entry in entries}


@asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    store, network = FickleRegistry(), Network()
    ways = [Way(store) for _ in range(NODES)]
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                engine(registry=way, network=network, node_id=f"n{number}")
            )
            for number, way in enumerate(ways)
        ]
        await until_seeded(nodes[0].node.view, nodes[0].node.follower, store)
        there = Stand(store, network, nodes, ways)
        await until(lambda: all(len(node.node.view.nodes) == NODES for node in nodes))
        yield there


async def changed_behind_the_back_of(s: Stand, stale: int) -> dict[str, ModelId]:
    """One Predictor updated, one deleted and one created while a node is frozen."""
    other = s.nodes[(stale + 1) % NODES]
    await other.apply("updated", "old")
    await other.apply("deleted", "a")
    await until(lambda: all(len(node.node.view.predictors) == 2 for node in s.nodes))
    s.freeze(stale)
    expected = {"updated": await other.apply("updated", "new")}
    await other.delete("deleted")
    expected["created"] = await other.apply("created", "b")
    awake = [node for number, node in enumerate(s.nodes) if number != stale]
    await until(lambda: all("created" in node.node.view.predictors for node in awake))
    return expected
