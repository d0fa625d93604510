"""Commits, listings and batches as the messages of wml_registry.proto, both ways."""

from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from mesh.core.ids import Revision
from mesh.registry.port import (
    Absent,
    Batch,
    Change,
    Check,
    Delete,
    Entry,
    Exists,
    LeaseId,
    Op,
    Put,
    Snapshot,
    Unchanged,
)
from mesh.wire.pb import wml_registry_pb2 as pb

# Of a listing, what goes into one message: far below the 16 MiB of a message.
PART_ENTRIES = 500


def entry_message(entry: Entry) -> pb.Entry:
    return pb.Entry(key=entry.key, value=entry.value, revision=entry.revision)


def entry_of(message: pb.Entry) -> Entry:
    return Entry(message.key, message.value, Revision(message.revision))


def parts_of(snapshot: Snapshot) -> Iterator[pb.ListPart]:
    """One part at least, for it says the revision."""
    for start in range(0, max(1, len(snapshot.entries)), PART_ENTRIES):
        entries = map(entry_message, snapshot.entries[start : start + PART_ENTRIES])
        yield pb.ListPart(entries=entries, revision=snapshot.revision, store_id=snapshot.store_id)


def snapshot_of(part: pb.ListPart) -> Snapshot:
    return Snapshot(tuple(map(entry_of, part.entries)), Revision(part.revision), part.store_id)


def commit_message(ops: Sequence[Op], checks: Sequence[Check]) -> pb.CommitRequest:
    return pb.CommitRequest(ops=map(_op_message, ops), checks=map(_check_message, checks))


def ops_of(message: pb.CommitRequest) -> list[Op]:
    return [
        Put(it.key, it.value, LeaseId(it.lease) if it.lease else None)
        if it.HasField("value")
        else Delete(it.key)
        for it in message.ops
    ]


def checks_of(message: pb.CommitRequest) -> list[Check]:
    """Raises ValueError for a kind that this version does not know: it could not be kept."""
    return [_check_of(it) for it in message.checks]


def event_message(batch: Batch) -> pb.WatchEvent:
    changes = (pb.Change(key=it.key, value=it.value) for it in batch.changes)
    return pb.WatchEvent(changes=changes, revision=batch.revision)


def batch_of(event: pb.WatchEvent) -> Batch:
    revision = Revision(event.revision)
    return Batch(tuple(_changes(event.changes, revision)), revision)


def _changes(messages: Iterable[pb.Change], revision: Revision) -> Iterator[Change[bytes]]:
    for it in messages:
        yield Change(it.key, it.value if it.HasField("value") else None, revision)


def _op_message(op: Op) -> pb.Op:
    if isinstance(op, Delete):
        return pb.Op(key=op.key)
    return pb.Op(key=op.key, value=op.value, lease=op.lease or 0)


def _check_message(check: Check) -> pb.Check:
    match check:
        case Absent(key=key):
            return pb.Check(kind=pb.Check.ABSENT, key=key)
        case Exists(key=key):
            return pb.Check(kind=pb.Check.EXISTS, key=key)
        case Unchanged(key=key, revision=revision):
            return pb.Check(kind=pb.Check.UNCHANGED, key=key, revision=revision)
        case _ as never:
            assert_never(never)


def _check_of(message: pb.Check) -> Check:
    match message.kind:
        case pb.Check.ABSENT:
            return Absent(message.key)
        case pb.Check.EXISTS:
            return Exists(message.key)
        case pb.Check.UNCHANGED:
            return Unchanged(message.key, Revision(message.revision))
    raise ValueError(f"check {message.kind} is not known")
