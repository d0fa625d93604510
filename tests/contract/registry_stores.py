"""The stores that the contract of the registry is run on, and what its tests share.

Another one joins by an entry in IMPLEMENTATIONS: an async context manager that yields a `Store`,
made of what the test run has for it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from mesh.core.ids import Revision
from mesh.peers.links import Links
from mesh.registry.etcd import EtcdRegistry
from mesh.registry.memory import MemoryRegistry
from mesh.registry.peer import PeerRegistry
from mesh.registry.port import (
    Batch,
    LeaseId,
    Put,
    Registry,
)
from mesh.registry.served import RegistryService
from tests.support.etcd import Etcd


@dataclass
class Store:
    """A store with the two levers that the port has not: compaction, and time."""

    registry: Registry
    compact: Callable[[], Coroutine[Any, Any, None]]
    pass_time: Callable[[float], Awaitable[None]]
    ttl_s: float


Opening = Callable[[], AbstractAsyncContextManager[Store]]


@asynccontextmanager
async def memory_store() -> AsyncIterator[Store]:
    now_s = 0.0
    registry = MemoryRegistry(clock=lambda: now_s)

    async def compact() -> None:
        registry.compact()

    async def pass_time(duration_s: float) -> None:
        nonlocal now_s
        now_s += duration_s
        registry.expire()

    yield Store(registry, compact, pass_time, ttl_s=10)
    await registry.close()


@asynccontextmanager
async def etcd_store(etcd: Etcd) -> AsyncIterator[Store]:
    """Empty, for it has a root prefix of its own."""
    registry = await EtcdRegistry.connect(etcd.settings())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{etcd.port}") as channel:

        async def compact() -> None:
            await compact_etcd(channel, (await registry.list("")).revision)

        yield Store(registry, compact, asyncio.sleep, ttl_s=2)
    await registry.close()


async def compact_etcd(channel: grpc.aio.Channel, revision: int) -> None:
    """As etcd's own timer does it. The request has one field set, an int64 with number 1."""
    call: Any = channel.unary_unary(
        "/etcdserverpb.KV/Compact", request_serializer=Int64Value.SerializeToString
    )
    try:
        await call(Int64Value(value=revision))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.OUT_OF_RANGE:  # compacted already
            raise


@asynccontextmanager
async def peer_store() -> AsyncIterator[Store]:
    """A store in memory, served and asked over loopback."""
    async with memory_store() as kept:
        server = grpc.aio.server()
        RegistryService(kept.registry).register(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        address = f"127.0.0.1:{port}"
        registry = await PeerRegistry.connect(Links(), address)
        yield replace(kept, registry=registry)
        await registry.close()
        await server.stop(None)


IMPLEMENTATIONS: dict[str, Callable[[pytest.FixtureRequest], Opening]] = {
    "memory": lambda _: memory_store,
    "peer": lambda _: peer_store,
    "etcd": lambda request: partial(etcd_store, request.getfixturevalue("etcd")),
}


async def contents(registry: Registry, prefix: str = "") -> dict[str, bytes]:
    return {entry.key: entry.value for entry in (await registry.list(prefix)).entries}


async def take(registry: Registry, count: int, *, after: Revision, prefix: str = "") -> list[Batch]:
    """The next `count` batches; marks are left out, for a store may send them or not."""
    taken: list[Batch] = []
    async with asyncio.timeout(10), aclosing(registry.watch(prefix, after)) as batches:
        async for batch in batches:
            taken += [batch] if batch.changes else []
            if len(taken) == count:
                return taken
    raise AssertionError("the watch ended")


def told(batches: list[Batch]) -> list[list[tuple[str, bytes | None]]]:
    return [[(change.key, change.value) for change in batch.changes] for batch in batches]


async def put(registry: Registry, key: str, value: bytes = b"", lease: LeaseId | None = None):
    return await registry.commit([Put(key, value, lease)])
