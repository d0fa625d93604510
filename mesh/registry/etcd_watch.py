"""One watch of etcd, across lost connections: it goes on where it was, or says that it cannot.

It begins at the last revision that is known, not after it, and drops what it has: so a compaction
that took anything later ends it (etcd itself would leave out deletions of the very revision that it
was compacted at). After each beginning the store is asked who it is: events of another store, or of
one that went back in time, are never passed on as if they came next.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mesh.core.errors import Unavailable
from mesh.core.ids import Revision
from mesh.registry.etcd_calls import WATCH, Keys
from mesh.registry.etcd_errors import EtcdFailure, Kind, away
from mesh.registry.etcd_history import MARK
from mesh.registry.etcd_link import CALL_S, RENEWALS, Link, foreseen
from mesh.registry.port import Batch, Change, Compacted
from mesh.wire.pb import etcd_pb2 as pb

FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 0.5

PASSING = (Kind.AWAY, Kind.NOT_DONE)


@dataclass(frozen=True, slots=True)
class Watch:
    """`identify` says which store this is now."""

    link: Link
    keys: Keys
    identify: Callable[[], Awaitable[str]]

    async def run(self, prefix: str, after: Revision, store_id: str) -> AsyncGenerator[Batch, None]:
        """As the port says; with no `store_id`, of the store at the first connection."""
        seen, pause_s, renewals = after, FIRST_PAUSE_S, 0
        this = object()
        try:
            while True:
                try:
                    async with self.link.stream(WATCH, pb.WatchRequest) as call:
                        await self._begin(call, prefix, seen)
                        store_id = _same(await self.identify(), store_id)
                        self.link.mended(this)
                        renewals = 0
                        async with aclosing(self._batches(call, seen)) as batches:
                            async for batch in batches:
                                seen, pause_s = batch.revision, FIRST_PAUSE_S
                                yield batch
                except EtcdFailure as error:
                    self.link.broke(this)
                    renewals += error.kind is Kind.TOKEN
                    is_passing = error.kind in PASSING or 0 < renewals <= RENEWALS
                    if self.link.is_closed or not is_passing:
                        raise
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_PAUSE_S)
        finally:
            self.link.mended(this)

    async def _begin(self, call: Any, prefix: str, seen: Revision) -> None:
        key, range_end = self.keys.below(prefix)
        create = pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=max(seen, 1),
            progress_notify=True,
            fragment=True,
        )
        with foreseen():
            async with self.link.within(CALL_S):
                await call.write(pb.WatchRequest(create_request=create))
                response = await call.read()
        _refuse_end(response, seen)

    async def _batches(self, call: Any, seen: Revision) -> AsyncGenerator[Batch, None]:
        life = self.link.history.known.life
        events: list[pb.Event] = []
        while True:
            with foreseen():
                response = await call.read()
            _refuse_end(response, seen)
            events += response.events
            if response.fragment:
                continue
            if not events and response.header.revision > seen:
                seen = Revision(response.header.revision)
                yield Batch((), seen)
            for batch in self._commits(events):
                if batch.revision > seen:
                    seen = batch.revision
                    self.link.history.saw(life, seen)
                    yield batch
            events = []

    def _commits(self, events: Sequence[pb.Event]) -> Iterator[Batch]:
        for revision, group in groupby(events, key=lambda event: event.kv.mod_revision):
            changes = tuple(self._change(event) for event in group)
            yield Batch(
                tuple(change for change in changes if change.key != MARK), Revision(revision)
            )

    def _change(self, event: pb.Event) -> Change[bytes]:
        value = None if event.type == pb.Event.DELETE else event.kv.value
        return Change(self.keys.decode(event.kv.key), value, Revision(event.kv.mod_revision))


def _same(found: str, expected: str) -> str:
    if expected and found != expected:
        raise Unavailable("this is another store than the one that was listed")
    return found


def _refuse_end(response: Any, seen: Revision) -> None:
    """Raises for whatever is no news of the watch."""
    if not isinstance(response, pb.WatchResponse):
        raise away("the watch has ended")
    if response.compact_revision > 0:
        raise Compacted(seen)
    if response.canceled:
        # The reason of a token that is not valid any more; a user without permission is told again.
        raise EtcdFailure(Kind.TOKEN, response.cancel_reason or "watch cancelled")
