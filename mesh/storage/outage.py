"""Notices when an object store that could not be reached is back.

A pull that failed for it need not wait until its failure is forgotten: a store that answers again
counts as a change of its storage key, which whoever loads models knows how to act on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from mesh.core.ids import StorageKey
from mesh.ops.tasks import Tasks
from mesh.storage.accounts import S3Account
from mesh.storage.keys import StorageKeys, key_or_default
from mesh.storage.port import StorageError, StoreUnreachable
from mesh.storage.pull import Pulled
from mesh.storage.transfer import PullRequest

PROBE_EVERY_S = 0.25
PROBE_TIMEOUT_S = 0.25
# By more keys than any mesh has the bound is not felt; it is there because users choose the names.
MOST_KEYS = 1_000
DEFAULT_PORTS = {"http": 80, "https": 443}

Progress = Callable[[int, int], None]


class Files(Protocol):
    """`mesh.storage.pull.Puller` is one."""

    async def pull(
        self, request: PullRequest, target: Path, progress: Progress | None = None
    ) -> Pulled: ...


async def is_listening(endpoint_url: str) -> bool:
    """Whether a connection to the endpoint is taken."""
    url = urlsplit(endpoint_url)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            port = url.port or DEFAULT_PORTS[url.scheme]
            _, writer = await asyncio.open_connection(url.hostname, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


class Outages:
    """A source of files and of key changes that adds the ends of outages to the latter."""

    def __init__(
        self,
        files: Files,
        keys: StorageKeys,
        is_up: Callable[[str], Awaitable[bool]] = is_listening,
    ) -> None:
        self._files = files
        self._keys = keys
        self._is_up = is_up
        self._lost: dict[StorageKey, Mapping[str, str]] = {}  # with a Predictor's parameters
        self._wake = asyncio.Event()

    async def pull(
        self, request: PullRequest, target: Path, progress: Progress | None = None
    ) -> Pulled:
        """As `files` does; an unreachable store is probed from now on."""
        try:
            return await self._files.pull(request, target, progress)
        except StoreUnreachable:
            if len(self._lost) < MOST_KEYS:
                key = key_or_default(request.storage_key, request.parameters)
                self._lost[key] = request.parameters
                self._wake.set()
            raise

    async def changes(self) -> AsyncIterator[str]:
        """The names of keys that changed, or whose store is back, for ever."""
        found: asyncio.Queue[str] = asyncio.Queue(MOST_KEYS)
        tasks = Tasks()
        tasks.spawn(_forward(self._keys.changes(), found), "key-changes")
        tasks.spawn(self._probe(found), "outages")
        try:
            while True:
                yield await found.get()
        finally:
            await tasks.close()

    async def _probe(self, found: asyncio.Queue[str]) -> None:
        while True:
            self._wake.clear()
            if not self._lost:
                await self._wake.wait()
            for key, parameters in sorted(self._lost.items()):
                if await self._is_back(key, parameters):
                    del self._lost[key]
                    await found.put(key)
            await asyncio.sleep(PROBE_EVERY_S)

    async def _is_back(self, key: StorageKey, parameters: Mapping[str, str]) -> bool:
        """Also where the key can no longer be read: another pull will say what is wrong with it."""
        try:
            account = await asyncio.to_thread(self._keys.get, key, parameters)
        except StorageError:
            return True
        return not isinstance(account, S3Account) or await self._is_up(account.endpoint_url)


async def _forward(changes: AsyncIterator[str], found: asyncio.Queue[str]) -> None:
    async for key in changes:
        await found.put(key)
