"""A memory store that can be lost, and comes back empty under another id: etcd without its data."""

from collections.abc import AsyncGenerator, Sequence

from mesh.core.ids import Revision
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Batch, Check, Entry, LeaseId, Op, Snapshot
from tests.support.virtual_time import loop_time_s


class FickleRegistry:
    """A Registry; `wipe` ends all watches and leases."""

    def __init__(self) -> None:
        self._inner = MemoryRegistry(clock=loop_time_s)

    async def wipe(self) -> None:
        before, self._inner = self._inner, MemoryRegistry(clock=loop_time_s)
        await before.close()

    @property
    def is_away(self) -> bool:
        return self._inner.is_away

    async def list(self, prefix: str) -> Snapshot:
        return await self._inner.list(prefix)

    def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        return self._inner.pages(prefix)

    async def get(self, key: str) -> Entry | None:
        return await self._inner.get(key)

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        return await self._inner.commit(ops, checks)

    def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        return self._inner.watch(prefix, after, store_id)

    async def grant(self, ttl_s: float) -> LeaseId:
        return await self._inner.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self._inner.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self._inner.revoke(lease)

    async def close(self) -> None:
        await self._inner.close()
