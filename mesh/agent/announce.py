"""Writes what this node says of itself: its node record and its copies, under its lease.

What should stand in the store is kept here, so that all of it can be announced again after the
lease or the store was lost. Changes are gathered while a commit is under way.
"""

import asyncio
import logging
from contextlib import suppress

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.port import (
    MAX_OPS,
    Absent,
    Delete,
    LeaseId,
    LeaseLost,
    Op,
    Put,
    Registry,
)

log = logging.getLogger(__name__)

LEASE_S = 10.0
KEEP_ALIVE_S = 3.0
RETRY_S = 0.5
SLACK_S = 0.001


class Announcer:
    """The only writer of this node's keys."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._wanted: dict[str, bytes] = {}
        self._stale: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._lease: LeaseId | None = None
        self._is_doubtful = False

    def put(self, key: str, value: bytes) -> None:
        """This is to stand in the store."""
        if self._wanted.get(key) != value:
            self._wanted[key] = value
            self._stale[key] = None
            self._wake.set()

    def drop(self, key: str) -> None:
        """This is not to stand in the store any more."""
        if self._wanted.pop(key, None) is not None:
            self._stale[key] = None
            self._wake.set()

    def doubt(self) -> None:
        """The store may not know the lease any more: looks at once."""
        self._is_doubtful = True
        self._wake.set()

    async def claim(self, key: str, value: bytes) -> Revision:
        """Creates a key under the lease, kept until it is dropped; `value` says whose it is.

        Raises Conflict if it exists with another value, LeaseLost; and Unavailable, after which it
        may exist all the same, and is to be dropped.
        """
        if self._lease is None:
            raise Unavailable("this node has no lease at the store")
        self._wanted[key] = value
        try:
            return await self._registry.commit([Put(key, value, self._lease)], [Absent(key)])
        except Conflict:
            # Our own of before, whose deletion was under way, was overtaken, or was lost with an
            # answer: were it taken for another's, nobody would ever load that model again.
            entry = await self._registry.get(key)
            if entry is None or entry.value != value:
                self._wanted.pop(key, None)
                raise
            return entry.revision

    async def run(self) -> None:
        """Announces under lease after lease, for ever; cancelled, it gives the lease back."""
        said = ""
        while True:
            try:
                lease = await self._registry.grant(LEASE_S)
                self._lease, said = lease, ""
                try:
                    await self._under(lease)
                except asyncio.CancelledError:
                    with suppress(Unavailable):  # it runs out of itself then
                        await self._registry.revoke(lease)
                    raise
                finally:
                    self._lease = None
            except (LeaseLost, Unavailable) as error:
                if str(error) != said:  # an outage is told once
                    said = str(error)
                    log.warning("announcing again", extra={"cause": said})
                await asyncio.sleep(RETRY_S)

    async def _under(self, lease: LeaseId) -> None:
        self._stale = dict.fromkeys(self._wanted)
        loop = asyncio.get_running_loop()
        keep_at_s = loop.time() + KEEP_ALIVE_S
        while True:
            is_due = loop.time() >= keep_at_s - SLACK_S  # timers may come a little early
            if is_due or self._is_doubtful:
                self._is_doubtful = False
                await self._registry.keep_alive(lease)
                keep_at_s = loop.time() + KEEP_ALIVE_S
            if self._stale:
                await self._flush(lease)
                continue
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(keep_at_s):
                    await self._wake.wait()

    async def _flush(self, lease: LeaseId) -> None:
        keys = list(self._stale)[:MAX_OPS]
        ops: list[Op] = []
        for key in keys:
            del self._stale[key]
            value = self._wanted.get(key)
            ops.append(Delete(key) if value is None else Put(key, value, lease))
        await self._registry.commit(ops)
