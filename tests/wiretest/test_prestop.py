"""The operations door on a real socket: who asks `/prestop` waits for a node that leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from router.operations import OperationsServer


class Leaving:
    def __init__(self, *, is_leaving: bool) -> None:
        self.is_leaving = is_leaving


async def _no_metrics() -> bytes:
    return b""


@asynccontextmanager
async def door(node: Leaving) -> AsyncIterator[tuple[OperationsServer, str]]:
    server = OperationsServer(lambda: "", _no_metrics, lambda: node.is_leaving)
    port = await server.start("127.0.0.1:0")
    try:
        yield server, f"http://127.0.0.1:{port}/prestop"
    finally:
        await server.stop()


async def _asked(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def test_prestop_while_the_node_leaves_is_answered_when_it_is_done():
    async with door(Leaving(is_leaving=True)) as (server, url):
        asking = asyncio.get_running_loop().create_task(_asked(url))
        done, _ = await asyncio.wait([asking], timeout=0.3)
        assert not done
        await server.stop()
        assert await asking == 200


async def test_prestop_when_the_node_begins_to_leave_later_waits_too():
    node = Leaving(is_leaving=False)
    async with door(node) as (server, url):
        asking = asyncio.get_running_loop().create_task(_asked(url))
        await asyncio.wait([asking], timeout=0.1)
        node.is_leaving = True
        done, _ = await asyncio.wait([asking], timeout=0.3)
        assert not done
        await server.stop()
        assert await asking == 200


async def test_prestop_of_a_container_that_alone_restarts_is_answered_soon(monkeypatch):
    monkeypatch.setattr("router.operations.LEAVE_BEGINS_S", 0.1)
    async with door(Leaving(is_leaving=False)) as (_, url):
        async with asyncio.timeout(1.5):
            assert await _asked(url) == 200
