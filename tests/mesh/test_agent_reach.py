"""Which nodes can be reached, and when what leads to one is closed; in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mesh.agent.reach import Reach
from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId
from mesh.core.records import NodeRecord, NodeState

N2 = NodeId("n2")
ADDRESS = "n2:8034"


@dataclass
class OnePeer:
    """A node that answers as itself or not, over a connection that is lost when a test says so."""

    is_itself: bool = True
    forgotten: list[str] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def hello(self, address: str) -> NodeId:
        await asyncio.sleep(0.001)
        if not self.is_itself or self.lost.is_set():
            raise Unavailable(address)
        return N2

    async def until_lost(self, address: str) -> None:
        assert address == ADDRESS
        await self.lost.wait()

    async def forget(self, address: str) -> None:
        self.forgotten.append(address)


@asynccontextmanager
async def reaching() -> AsyncIterator[
    tuple[Reach, OnePeer, dict[NodeId, NodeRecord], list[NodeId]]
]:
    """Also the nodes that there are, and those of which a change was told."""
    peer, changed = OnePeer(), list[NodeId]()
    nodes = {N2: NodeRecord(N2, NodeState.READY, address=ADDRESS)}
    reach = Reach(peer, nodes, changed.append)
    try:
        yield reach, peer, nodes, changed
    finally:
        await reach.close()


async def test_node_that_left_is_down_for_good_though_it_says_hello():
    async with reaching() as (reach, _, _, changed):
        reach.left(N2)
        await asyncio.sleep(60)
        assert (reach.down, changed) == ({N2}, [N2])


@pytest.mark.parametrize("is_itself", [True, False])
async def test_what_leads_to_a_node_that_left_is_closed_once_it_is_gone_and_no_earlier(
    *, is_itself: bool
):
    async with reaching() as (reach, peer, nodes, _):
        peer.is_itself = is_itself
        reach.left(N2)
        del nodes[N2]
        await asyncio.sleep(60)
        assert not peer.forgotten
        peer.lost.set()
        await asyncio.sleep(60)
        assert peer.forgotten == [ADDRESS]
        assert not reach.down


async def test_what_leads_to_another_life_at_the_same_address_stays_and_nobody_waits_for_its_end():
    async with reaching() as (reach, peer, nodes, _):
        reach.left(N2)
        del nodes[N2]
        nodes[NodeId("n2-again")] = NodeRecord(NodeId("n2-again"), NodeState.READY, address=ADDRESS)
        peer.is_itself = False
        await asyncio.sleep(60)
        assert not reach.down
        assert len(asyncio.all_tasks()) == 1
        assert not peer.forgotten


@pytest.mark.parametrize("tell", [Reach.left, Reach.lost])
async def test_nothing_is_remembered_of_nodes_that_are_gone(tell):
    async with reaching() as (reach, _, nodes, changed):
        del nodes[N2]
        tell(reach, N2)
        assert not reach.down
        assert not changed
