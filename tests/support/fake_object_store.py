"""An ObjectStore in memory, whose faults are its arguments."""

import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mesh.storage.keys import S3Account
from mesh.storage.names import check_path, safe_place
from mesh.storage.port import Listing, ObjectNotFound, StoredObject

CHUNK_BYTES = 4


@dataclass
class FakeObjectStore:
    """`before_read` is called at each read with the object's name and may raise or wait;
    `listed_bytes` are sizes that the listing tells otherwise than they are.
    """

    content: Mapping[str, bytes]
    before_read: Callable[[str], None] = lambda name: None
    listed_bytes: Mapping[str, int] = field(default_factory=dict)
    opened: list[tuple[str, S3Account, str]] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, key: str, account: S3Account, bucket: str) -> "FakeObjectStore":
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

    def read(self, item: StoredObject) -> Generator[bytes, None, None]:
        with self._lock:
            self.reads.append(item.name)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            self.before_read(item.name)
            data = self.content[item.name]
            for start in range(0, len(data), CHUNK_BYTES):
                yield data[start : start + CHUNK_BYTES]
        finally:
            with self._lock:
                self._now -= 1
                self.closed.append(item.name)

    def _item(self, name: str, relative: str) -> StoredObject:
        size_bytes = self.listed_bytes.get(name, len(self.content[name]))
        return StoredObject(name, safe_place(name, relative), size_bytes)
