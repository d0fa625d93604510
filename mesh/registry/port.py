"""The port of the store: keys and bytes, changed several at once, watched from a revision, leased.

It promises what etcd can keep, so that memory and etcd pass one suite (tests/contract):

- A commit that changes something moves the revision of the whole store on; its changes all carry
  that revision and are seen together. One that changes nothing leaves the revision alone.
- `list` and `get` are linearizable: they see every commit that has been answered.
- A key belongs to the lease of its last `Put`; a `Put` without a lease frees it from one.
- Any method may raise `core.errors.Unavailable`. A commit that did so, or that was cancelled, may
  have been carried out all the same; only the memory store promises more.

It must not know what keys and values mean.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Generic, NewType, Protocol, TypeVar

from mesh.core.ids import Revision

LeaseId = NewType("LeaseId", int)
Value = TypeVar("Value")

# etcd's own limit; it counts operations and checks each for itself.
MAX_OPS = 128


class Compacted(Exception):
    """The commits after that revision are not all kept any more: list again."""

    def __init__(self, after: Revision) -> None:
        super().__init__(f"the store no longer keeps every commit after revision {after}")
        self.after = after


class LeaseLost(Exception):
    """The lease ran out, was revoked, or never was; its keys are gone."""

    def __init__(self, lease: LeaseId) -> None:
        super().__init__(f"lease {lease:x} is gone")
        self.lease = lease


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it stands; `revision` is that of the commit that last put it."""

    key: str
    value: bytes
    revision: Revision


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All entries below a prefix, sorted by key, as they stood at `revision` of the store.

    A `store_id` that differs from an earlier one says that this is another store: revisions of the
    two cannot be compared.
    """

    entries: tuple[Entry, ...]
    revision: Revision
    store_id: str


@dataclass(frozen=True, slots=True)
class Change(Generic[Value]):
    """A key was put, or deleted where `value` is None. Stores know values as bytes."""

    key: str
    value: Value | None
    revision: Revision


@dataclass(frozen=True, slots=True)
class Batch:
    """The changes of one commit.

    Without changes it is a mark: all there was up to `revision` has been delivered.
    """

    changes: tuple[Change[bytes], ...]
    revision: Revision


@dataclass(frozen=True, slots=True)
class Put:
    """Sets a key, under a lease or for good."""

    key: str
    value: bytes
    lease: LeaseId | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Removes a key; nothing where it is absent."""

    key: str


@dataclass(frozen=True, slots=True)
class Absent:
    """Holds where there is no such key."""

    key: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Holds where the key exists and was last put at `revision`."""

    key: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Exists:
    """Holds where the key exists."""

    key: str


Op = Put | Delete
Check = Absent | Unchanged | Exists


class Registry(Protocol):
    """The store, as the mesh uses it."""

    @property
    def is_away(self) -> bool:
        """Whether it was away when it was last tried: watches may be waiting for it."""
        ...

    async def list(self, prefix: str) -> Snapshot:
        """All entries whose key begins with `prefix`, at one revision; "" is all of them."""
        ...

    def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        """What `list` answers, in parts: one at least, each with the revision and the store.

        Raises Compacted where what was at that revision is not kept until the last. Close it.
        """
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        """Carries out all of `ops` if all of `checks` hold, else nothing.

        Answers with the revision at which the changes are visible. Raises Conflict with the key of
        the first check that failed, then LeaseLost where a lease is gone, and ValueError as
        `reject_malformed` does.
        """
        ...

    def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        """The commits later than `after` that touch `prefix`, in order, and only those changes.

        `store_id` says of which store `after` is; where it is another one, it raises Unavailable.

        Marks may come between them. Raises Compacted where commits after `after`, or after what the
        consumer has taken so far, are not kept any more: a slow consumer holds up nobody. Raises
        Unavailable when the connection is lost, unless it is certain on return that this is the
        same store and did not go back. Close it (`contextlib.aclosing`) when done.
        """
        ...

    async def grant(self, ttl_s: float) -> LeaseId:
        """A lease that runs out unless kept alive each `ttl_s`, which a store may round up."""
        ...

    async def keep_alive(self, lease: LeaseId) -> None:
        """Begins the lease's time anew; raises LeaseLost."""
        ...

    async def revoke(self, lease: LeaseId) -> None:
        """Ends the lease and deletes its keys in one commit; nothing where it is gone already."""
        ...

    async def close(self) -> None:
        """Ends watches and all that is under way by Unavailable; leases are left to run out."""
        ...


async def whole(pages: AsyncGenerator[Snapshot, None]) -> Snapshot:
    """A listing of all its pages."""
    entries: list[Entry] = []
    async with aclosing(pages):
        async for page in pages:
            entries += page.entries
    return replace(page, entries=tuple(entries))


def reject_malformed(ops: Sequence[Op], checks: Sequence[Check]) -> None:
    """Raises ValueError for what etcd would refuse, so that every store refuses it alike.

    That is an empty key, one that is no Unicode text, a key with two operations, or more than
    MAX_OPS operations or checks.
    """
    if max(len(ops), len(checks)) > MAX_OPS:
        raise ValueError(f"a commit holds at most {MAX_OPS} operations and as many checks")
    keys = [op.key for op in ops]
    if len(set(keys)) < len(keys):
        raise ValueError("a commit may change a key only once")
    for key in keys + [check.key for check in checks]:
        if not key.encode():
            raise ValueError("a key may not be empty")
