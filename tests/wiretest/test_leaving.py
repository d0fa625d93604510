"""A node that leaves while the store is away: nobody is told, and what peers pass on ends well."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from mesh.agent.holdings import Identity
from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId, Revision
from mesh.peers.client import GrpcPeers
from mesh.peers.links import Links
from mesh.registry.port import Check, LeaseId, Op
from router import node as router_node
from tests.support.builders import RUNTIME
from tests.support.fake_runtime import FakeRuntime
from tests.support.fickle_registry import FickleRegistry
from tests.support.world import World, begin, eventually, world

CALLERS = 8


class AwayRegistry(FickleRegistry):
    """One that takes nothing while it is cut off, and tells nothing new."""

    is_cut = False

    @property
    def is_away(self) -> bool:
        return self.is_cut

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        self._check()
        return await super().commit(ops, checks)

    async def grant(self, ttl_s: float) -> LeaseId:
        self._check()
        return await super().grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        self._check()
        await super().keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        self._check()
        await super().revoke(lease)

    def _check(self) -> None:
        if self.is_cut:
            raise Unavailable("the store is away")


@pytest.mark.parametrize("is_told", [True, False], ids=["told by itself", "told by nobody"])
async def test_calls_that_peers_pass_on_to_a_node_that_leaves_unannounced_are_all_answered(
    *, is_told: bool, monkeypatch: pytest.MonkeyPatch
):
    if is_told:
        monkeypatch.setattr(router_node, "LEFT_S", 0.0)  # it waits for nothing else
    else:
        monkeypatch.setattr(GrpcPeers, "farewell", _unheard)
    registry = AwayRegistry()
    async with AsyncExitStack() as stack, AsyncExitStack() as leaving:
        holder, asked = await _holder_and_asked(leaving, stack, registry)
        third = await stack.enter_async_context(_node("n3", registry, FakeRuntime()))
        await eventually(lambda: _knows(asked, 3) and _knows(holder, 3))
        registry.is_cut = True
        answers = _Answers(asked)
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(answers.gather())
            await eventually(lambda: answers.count > 100)
            assert not third.plane.metadata
            await leaving.aclose()
            answers.is_enough = True
        assert third.plane.metadata


@pytest.mark.parametrize("is_away", [True, False], ids=["the store is away", "all is well"])
async def test_call_that_a_peer_passed_on_lasts_longer_than_its_node(*, is_away: bool):
    registry = AwayRegistry()
    async with AsyncExitStack() as stack, AsyncExitStack() as leaving:
        holder, asked = await _holder_and_asked(leaving, stack, registry)
        await eventually(lambda: _knows(asked, 2) and asked.running.node.routes.get("p"))
        gate = holder.plane.gates["held"] = asyncio.Event()
        answer = begin(asked.ask("p", "held"))
        await eventually(lambda: holder.plane.metadata)
        registry.is_cut = is_away
        leaves = begin(leaving.aclose())
        await asyncio.sleep(2.0)  # it has told everybody, and is gone from the store
        assert not leaves.done()
        gate.set()
        assert (await answer).id == "held"
        await leaves


async def test_node_that_has_left_does_not_answer_as_itself_any_more():
    async with _node("n1", AwayRegistry(), FakeRuntime()) as left:
        address = left.running.node.identity.address
        peers = GrpcPeers(Links())
        try:
            assert await peers.hello(address) == NodeId("n1")
            left.running.node.has_left = True
            with pytest.raises(Unavailable, match="the node has left"):
                await peers.hello(address)
        finally:
            await peers.close()


async def _holder_and_asked(
    leaving: AsyncExitStack, staying: AsyncExitStack, registry: AwayRegistry
) -> tuple[World, World]:
    """One that leaves, with "p" Loaded, and one that stays and has no room for it."""
    holder = await leaving.enter_async_context(_node("n1", registry, FakeRuntime()))
    asked = await staying.enter_async_context(_node("n2", registry, FakeRuntime(capacity_bytes=1)))
    await holder.apply("p")
    await holder.reaches("p", "Loaded  UpToDate")
    return holder, asked


async def _unheard(peers: GrpcPeers, address: str, node: NodeId) -> None:
    raise Unavailable(f"node at {address} cannot be reached")


class _Answers:
    """Calls one after another; each must be answered."""

    def __init__(self, asked: World) -> None:
        self._asked = asked
        self.count = 0
        self.is_enough = False

    async def gather(self) -> None:
        while not self.is_enough:
            await self._asked.ask("p")
            self.count += 1


def _node(name: str, registry: AwayRegistry, runtime: FakeRuntime):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    identity = Identity(NodeId(name), RUNTIME, address=address)
    return world(runtime, identity=identity, registry=registry, management=address)


def _knows(one: World, count: int) -> bool:
    node = one.running.node
    return len(node.view.nodes) == count and node.is_ready
