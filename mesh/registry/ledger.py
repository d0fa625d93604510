"""The book of the memory store: what each key holds, and the last commits. Synchronous throughout.

Revisions are gapless: the commits that are kept are those from `_compacted + 1` to `revision`. A
watcher has no queue of its own, only the revision up to which it has read here; so one that is slow
costs nothing, and one that is too slow finds its place compacted.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

from mesh.core.ids import Revision
from mesh.registry.port import (
    Absent,
    Batch,
    Change,
    Check,
    Compacted,
    Entry,
    Exists,
    Op,
    Put,
    Unchanged,
)


class Ledger:
    """Entries and the last `history` commits; what it holds at first is its first commit.

    Revisions begin after `epoch`.
    """

    def __init__(self, initial: Mapping[str, bytes], *, history: int, epoch: int = 0) -> None:
        self._history = history
        self._compacted = Revision(epoch)
        self._entries: dict[str, Entry] = {}
        self._commits: dict[Revision, Batch] = {}
        self.revision = Revision(epoch)
        self._record([(key, value) for key, value in initial.items()])

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def below(self, prefix: str) -> tuple[Entry, ...]:
        """The entries whose key begins with `prefix`, sorted by key."""
        return tuple(self._entries[key] for key in sorted(self._entries) if key.startswith(prefix))

    def first_failed(self, checks: Sequence[Check]) -> str | None:
        """The key of the first check that does not hold."""
        return next((check.key for check in checks if not self._holds(check)), None)

    def commit(self, ops: Sequence[Op]) -> bool:
        """Carries them out as one commit; false when they came to nothing."""
        changes = [
            (op.key, op.value if isinstance(op, Put) else None)
            for op in ops
            if isinstance(op, Put) or op.key in self._entries
        ]
        if changes:
            self._record(changes)
        return bool(changes)

    def next_batch(self, prefix: str, after: Revision) -> Batch | None:
        """The first commit after `after` that touches `prefix`; None when all has been read.

        When the commits that are left all touch other keys, a mark. Raises Compacted.
        """
        if after < self._compacted:
            raise Compacted(after)
        if after >= self.revision:
            return None
        for revision in range(after + 1, self.revision + 1):
            commit = self._commits[Revision(revision)]
            touched = tuple(change for change in commit.changes if change.key.startswith(prefix))
            if touched:
                return Batch(touched, commit.revision)
        return Batch((), self.revision)

    def compact(self, keep: int = 0) -> None:
        """Forgets all commits but the last `keep`."""
        while self._compacted < self.revision - keep:
            self._compacted = Revision(self._compacted + 1)
            del self._commits[self._compacted]

    def _record(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        self.revision = revision = Revision(self.revision + 1)
        for key, value in changes:
            if value is None:
                del self._entries[key]
            else:
                self._entries[key] = Entry(key, value, revision)
        changed = tuple(Change(key, value, revision) for key, value in changes)
        self._commits[revision] = Batch(changed, revision)
        self.compact(keep=self._history)

    def _holds(self, check: Check) -> bool:
        entry = self._entries.get(check.key)
        match check:
            case Absent():
                return entry is None
            case Exists():
                return entry is not None
            case Unchanged(_, revision):
                return entry is not None and entry.revision == revision
            case _ as never:
                assert_never(never)
