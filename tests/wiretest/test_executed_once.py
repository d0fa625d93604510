"""A request that was passed to a runtime is not passed on again, whatever becomes of it: it may
have been executed. It is counted where it is executed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import grpc
import pytest

from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId
from mesh.registry.memory import MemoryRegistry
from tests.support.builders import RUNTIME
from tests.support.fake_runtime import FakeRuntime
from tests.support.ports import free_ports
from tests.support.severing import SeveringProxy, severing
from tests.support.world import World, begin, eventually, world

WORDS = "worker died"


@dataclass
class Two:
    """`holder` has the model, and `other` has no room for it. The proxies stand before what each of
    the holder's runtime and the holder itself is called at."""

    holder: World
    other: World
    before_runtime: SeveringProxy
    before_holder: SeveringProxy

    def asked(self, place: str) -> World:
        return self.holder if place == "here" else self.other

    def executions(self) -> int:
        return len(self.holder.plane.metadata) + len(self.other.plane.metadata)


@asynccontextmanager
async def two() -> AsyncIterator[Two]:
    registry = MemoryRegistry()
    async with AsyncExitStack() as stack:
        before_runtime, before_holder, before_other = [
            await stack.enter_async_context(severing()) for _ in range(3)
        ]
        worlds = []
        for name, proxy, port, runtime in zip(
            ("n1", "n2"),
            (before_holder, before_other),
            free_ports(2),
            (FakeRuntime(), FakeRuntime(capacity_bytes=1)),
            strict=True,
        ):
            proxy.target = f"127.0.0.1:{port}"
            identity = Identity(NodeId(name), RUNTIME, address=proxy.address)
            node = world(runtime, identity=identity, registry=registry, management=proxy.target)
            worlds.append(await stack.enter_async_context(node))
        holder, other = worlds
        before_runtime.target = holder.runtime.address
        holder.runtime.address = before_runtime.address
        for w in worlds:
            await eventually(lambda w=w: len(w.running.node.view.nodes) == len(worlds))
        await holder.apply("p")
        await holder.reaches("p", "Loaded  UpToDate")
        await eventually(lambda: other.running.node.routes.get("p"))
        yield Two(holder, other, before_runtime, before_holder)


@pytest.mark.parametrize("place", ["here", "over a hop"])
async def test_call_that_the_runtime_ends_with_unavailable_is_executed_once(place: str):
    async with two() as there:
        plane = there.holder.plane
        plane.errors["bad"] = (grpc.StatusCode.UNAVAILABLE, WORDS)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await there.asked(place).ask("p", "bad")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert raised.value.details() == WORDS
        assert there.executions() == 1
        assert (await there.asked(place).ask("p", "good")).id == "good"
        assert there.executions() == 2


@pytest.mark.parametrize(
    ("place", "lost"),
    [("here", "runtime"), ("over a hop", "runtime"), ("over a hop", "holder")],
)
async def test_call_whose_connection_is_lost_on_the_way_is_executed_once(place: str, lost: str):
    async with two() as there:
        gate = there.holder.plane.gates["slow"] = asyncio.Event()
        asked = begin(there.asked(place).ask("p", "slow"))
        await eventually(lambda: there.executions() == 1)
        proxy = there.before_runtime if lost == "runtime" else there.before_holder
        assert proxy.sever() > 0
        gate.set()  # were it passed on again, it would be answered
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asked
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert there.executions() == 1
        await eventually(lambda: there.asked(place).running.node.routes.get("p"))
        assert (await there.asked(place).ask("p", "next")).id == "next"
        assert there.executions() == 2
