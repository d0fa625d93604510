"""A memory store that can be lost, or set back to a backup, and the way of one node to it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Batch, Check, Entry, LeaseId, Op, Registry, Snapshot
from tests.support.virtual_time import loop_time_s


class FickleRegistry:
    """A Registry; `wipe` and `restore` end all watches and leases."""

    def __init__(self) -> None:
        self._inner = MemoryRegistry(clock=loop_time_s)

    def go_away(self) -> None:
        """Whatever is asked, or was watched, ends by Unavailable; leases run on."""
        self._inner._closed = self._inner.is_away = True
        self._inner._changed.ring()

    def come_back(self) -> None:
        """With all that it had."""
        self._inner._closed = self._inner.is_away = False

    async def wipe(self) -> None:
        """It comes back empty under another id: etcd without its data."""
        await self._become(MemoryRegistry(clock=loop_time_s))

    async def restore(self, backup: Snapshot) -> None:
        """It comes back as the same store at an earlier revision: etcd's own snapshot."""
        kept = {entry.key: entry.value for entry in backup.entries}
        restored = MemoryRegistry(clock=loop_time_s, initial=kept)
        restored._store_id = backup.store_id
        await self._become(restored)

    async def _become(self, registry: MemoryRegistry) -> None:
        before, self._inner = self._inner, registry
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


class Way:
    """A Registry: the way of one node to a store.

    While `open` is not set the node hears and says nothing, as one that is frozen or cut off from
    the store. It does not imitate: that a frozen node does nothing else either.
    """

    def __init__(self, store: Registry) -> None:
        self._store = store
        self.open = asyncio.Event()
        self.open.set()

    @property
    def is_away(self) -> bool:
        return self._store.is_away

    async def list(self, prefix: str) -> Snapshot:
        await self.open.wait()
        return await self._store.list(prefix)

    async def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        await self.open.wait()
        async for page in self._store.pages(prefix):
            yield page

    async def get(self, key: str) -> Entry | None:
        await self.open.wait()
        return await self._store.get(key)

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        await self.open.wait()
        return await self._store.commit(ops, checks)

    async def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        try:
            async for batch in self._store.watch(prefix, after, store_id):
                await self.open.wait()
                yield batch
        except Unavailable:
            await self.open.wait()
            raise

    async def grant(self, ttl_s: float) -> LeaseId:
        await self.open.wait()
        return await self._store.grant(ttl_s)

    async def keep_alive(self, lease: LeaseId) -> None:
        await self.open.wait()
        await self._store.keep_alive(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self._store.revoke(lease)

    async def close(self) -> None:
        pass
