"""The store of one process: what `wml-serving serve` runs on, and most tests.

Everything is decided and applied in one stretch without an await. Only with a journal is there an
await between the two, and then all commits take turns in one task, so that what a commit has
checked still holds when it is applied; leases do not run out during a turn for the same reason.
The task goes on when who asked for the commit is cancelled: memory and journal never differ.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from uuid import uuid4

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.ops.clock import monotonic_s
from mesh.ops.tasks import Tasks
from mesh.registry.bell import Bell
from mesh.registry.journal import Journal
from mesh.registry.leases import Leases
from mesh.registry.ledger import Ledger
from mesh.registry.port import (
    Batch,
    Check,
    Delete,
    Entry,
    LeaseId,
    Op,
    Put,
    Snapshot,
    reject_malformed,
)

Decide = Callable[[], Sequence[Op]]
NOTHING: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class _Turn:
    decide: Decide
    answer: asyncio.Future[Revision]


class MemoryRegistry:
    """The port `Registry`, in memory.

    `history` commits are kept for watchers. `initial` is there from the start: give it
    `journal.load()` to go on where the last process ended. What a journal cannot store changes
    nothing and raises Unavailable. Revisions and ids of leases begin after `epoch`: where other
    processes use it, a store must not give out again what one of its past lives did.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = monotonic_s,
        history: int = 10_000,
        initial: Mapping[str, bytes] = NOTHING,
        journal: Journal | None = None,
        epoch: int = 0,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._store_id = uuid4().hex
        self._ledger = Ledger(initial, history=history, epoch=epoch)
        self._leases = Leases(epoch=epoch)
        self._changed = Bell()
        self._timer: asyncio.TimerHandle | None = None
        self._turns: deque[_Turn] = deque()
        self._tasks = Tasks()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self.is_away = False

    async def list(self, prefix: str) -> Snapshot:
        self._enter()
        return Snapshot(self._ledger.below(prefix), self._ledger.revision, self._store_id)

    async def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        yield await self.list(prefix)

    async def get(self, key: str) -> Entry | None:
        self._enter()
        return self._ledger.get(key)

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        reject_malformed(ops, checks)
        return await self._take_turn(lambda: self._checked(ops, checks))

    async def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        if store_id not in ("", self._store_id):
            raise Unavailable("this is another store than the one that was listed")
        seen = after
        while True:
            self._enter()
            batch = self._ledger.next_batch(prefix, seen)
            if batch is None:  # Await-free since the look: no ring is missed.
                await self._changed.wait()
            else:
                seen = batch.revision
                yield batch

    async def grant(self, ttl_s: float) -> LeaseId:
        self._enter()
        lease = self._leases.grant(ttl_s, now_s=self._clock())
        self._set_timer()
        return lease

    async def keep_alive(self, lease: LeaseId) -> None:
        self._enter()
        self._leases.renew(lease, now_s=self._clock())

    async def revoke(self, lease: LeaseId) -> None:
        self._leases.lapse(lease)
        await self._take_turn(lambda: ())  # Each turn begins by ending what is overdue.

    async def close(self) -> None:
        """As the port says, but what the journal has begun is finished first."""
        self._closed = self.is_away = True
        if self._writer is not None:
            await asyncio.wait({self._writer})
        if self._timer is not None:
            self._timer.cancel()
        self._changed.ring()

    def compact(self) -> None:
        """Forgets the history, as a compaction of etcd does: whoever lags must list again."""
        self._ledger.compact()

    def expire(self) -> None:
        """Ends the leases whose time is over. A timer and each operation do it; so may a test."""
        if not self._is_writing():
            self._end_overdue()

    def _enter(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")
        self.expire()

    async def _take_turn(self, decide: Decide) -> Revision:
        """Decides, stores and applies. Once it has begun, a cancellation does not stop it."""
        self._enter()  # Ends what is overdue, unless a turn is under way.
        if self._journal is None:
            revision = self._apply(decide())  # Await-free: nothing comes between.
            await asyncio.sleep(0)  # One who writes in a loop lets the watchers run.
            return revision
        turn = _Turn(decide, asyncio.get_running_loop().create_future())
        self._turns.append(turn)
        if not self._is_writing():
            self._writer = self._tasks.spawn(self._write(self._journal), "registry-writer")
        return await turn.answer

    async def _write(self, journal: Journal) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if turn.answer.done():  # Cancelled before its turn came.
                continue
            try:
                revision = await self._write_one(turn.decide, journal)
            except Exception as error:  # noqa: BLE001 - it belongs to who asked
                if not turn.answer.done():
                    turn.answer.set_exception(error)
            else:
                if not turn.answer.done():
                    turn.answer.set_result(revision)
        self._end_overdue()
        self._set_timer()

    async def _write_one(self, decide: Decide, journal: Journal) -> Revision:
        self._end_overdue()
        ops = decide()
        kept = {op.key: _lasting_value(op) for op in ops if journal.concerns(op.key)}
        if kept:
            await asyncio.to_thread(journal.write, kept)
        return self._apply(ops)

    def _is_writing(self) -> bool:
        return self._writer is not None and not self._writer.done()

    def _checked(self, ops: Sequence[Op], checks: Sequence[Check]) -> Sequence[Op]:
        if (key := self._ledger.first_failed(checks)) is not None:
            raise Conflict(key)
        for op in ops:
            if isinstance(op, Put) and op.lease is not None:
                self._leases.require(op.lease)
        return ops

    def _apply(self, ops: Sequence[Op]) -> Revision:
        for op in ops:
            self._leases.bind(op.key, op.lease if isinstance(op, Put) else None)
        if self._ledger.commit(ops):
            self._changed.ring()
        return self._ledger.revision

    def _end_overdue(self) -> None:
        for lease in self._leases.overdue(self._clock()):
            # No journal: it holds nothing of a key that hangs on a lease.
            self._apply([Delete(key) for key in self._leases.end(lease)])

    def _set_timer(self) -> None:
        """One timer, for the lease that ends next; one that was kept alive meanwhile sets anew."""
        if self._timer is not None:
            self._timer.cancel()
        deadline_s = self._leases.next_deadline_s()
        if deadline_s is not None and not self._closed:
            wait_s = max(0.0, deadline_s - self._clock())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        if not self._is_writing():  # The writer does it when it is done.
            self._end_overdue()
            self._set_timer()


def _lasting_value(op: Op) -> bytes | None:
    """What a restart should find: nothing of a key that hangs on a lease."""
    return op.value if isinstance(op, Put) and op.lease is None else None
