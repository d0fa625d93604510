"""An ObjectStore in memory, whose faults are its arguments."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mesh.storage.accounts import Account
from mesh.storage.checksums import Checksum
from mesh.storage.names import check_path, safe_place
from mesh.storage.port import Listing, ObjectNotFound, ReadCut, Reading, StoredObject

CHUNK_BYTES = 4
DEADLINE_S = 10


@dataclass
class FakeObjectStore:
    """`before_read` is called at each read with the object's name and may raise or wait;
    `listed_bytes` are sizes that the listing tells otherwise than they are; `cuts` has for an
    object how many bytes each of its next reads gives before it breaks.
    """

    content: Mapping[str, bytes]
    before_read: Callable[[str], None] = lambda name: None
    listed_bytes: Mapping[str, int] = field(default_factory=dict)
    cuts: Mapping[str, list[int]] = field(default_factory=dict)
    checksums: Mapping[str, Checksum] = field(default_factory=dict)
    opened: list[tuple[str, Account, str]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def open(self, key: str, account: Account, bucket: str) -> "FakeObjectStore":
        self.opened.append((key, account, bucket))
        return self

    def listing(self, path: str) -> Listing:
        name = check_path(path)
        if name in self.content:
            return Listing((self._item(name, name.rpartition("/")[2]),), is_single=True)
        prefix = f"{name.rstrip('/')}/"
        below = [each for each in self.content if each.startswith(prefix)]
        objects = tuple(self._item(each, each.removeprefix(prefix)) for each in below)
        if not objects:
            raise ObjectNotFound(path, "memory")
        return Listing(objects, (PurePosixPath("empty"),))

    @contextmanager
    def read(self, item: StoredObject, start: int = 0) -> Iterator[Reading]:
        with self._lock:
            self.reads.append(item.name)
            self.starts.append(start)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.before_read(item.name)
            yield Reading(self._chunks(item.name, start), self.checksums.get(item.name))
        finally:
            with self._lock:
                self._now -= 1
                self.closed.append(item.name)
                self._lock.notify_all()

    def wait_for_closed(self, count: int) -> None:
        """Until so many reads have ended. Blocking: from a test's loop use `to_thread`."""
        with self._lock:
            assert self._lock.wait_for(lambda: len(self.closed) >= count, DEADLINE_S)

    def _chunks(self, name: str, start: int) -> Iterator[bytes]:
        data = self.content[name]
        cut = self.cuts[name].pop(0) if self.cuts.get(name) else None
        end = len(data) if cut is None else start + cut
        for at in range(start, end, CHUNK_BYTES):
            yield data[at : min(at + CHUNK_BYTES, end)]
        if cut is not None:
            raise ReadCut(name, "cut")

    def _item(self, name: str, relative: str) -> StoredObject:
        size_bytes = self.listed_bytes.get(name, len(self.content[name]))
        return StoredObject(name, safe_place(name, relative), size_bytes)
