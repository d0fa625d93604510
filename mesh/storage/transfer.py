"""The blocking half of a pull: list, make room, fetch in parallel, check. Runs in threads alone.

Everything is written below a staging folder, which is there at the end only if all of it is. A stop
is looked at before each chunk; the threads that are still at work then leave by themselves.
"""

import errno
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Event, Lock

from mesh.core.ids import StorageKey
from mesh.storage.disk import Disk, Share
from mesh.storage.names import check_apart
from mesh.storage.port import (
    DiskFailed,
    DiskFull,
    Listing,
    ObjectNotFound,
    ObjectStore,
    ReadBroken,
    ReadCut,
    StorageError,
    StoredObject,
)
from mesh.storage.resumption import Patience, read_whole

# Beside the model's own files: where ModelMesh's runtimes look for a schema.
SCHEMA = PurePosixPath("_schema.json")
READS = 3
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Stopped(Exception):
    """The pull was cancelled: nobody waits for this error."""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What to pull: an object or prefix, and perhaps a schema from the same bucket.

    `bucket`, where it is not empty, wins over the one of the storage key.
    """

    storage_key: StorageKey
    path: str
    bucket: str = ""
    schema_path: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """What a finished transfer has put below its staging folder; places are relative to that."""

    model: PurePosixPath
    size_bytes: int
    files: int
    schema: PurePosixPath | None


class Transfer:
    """One pull into `staging`, once, with a share of the disk.

    `report` is called from several threads with the bytes done, and those in all.

    `pauses_s` are those before each resumption of a read that makes no progress.
    """

    def __init__(
        self,
        request: PullRequest,
        staging: Path,
        disk: Disk,
        share: Share,
        report: Callable[[int, int], None],
        pauses_s: Sequence[float],
    ) -> None:
        self._request = request
        self._staging = staging
        self._disk = disk
        self._share = share
        self._report = report
        self._pauses_s = pauses_s
        self._stopped = Event()
        self._counting = Lock()

    def stop(self) -> None:
        self._stopped.set()

    def run(self, open_store: Callable[[], ObjectStore], workers: Executor) -> Staged:
        """Fills the staging folder, or leaves none and raises a StorageError or Stopped."""
        try:
            share = self._share
            with disk_errors(self._staging.parent, lambda: share.total_bytes - share.done_bytes):
                return self._run(open_store, workers)
        except BaseException:
            self.stop()
            shutil.rmtree(self._staging, ignore_errors=True)
            raise

    def _run(self, open_store: Callable[[], ObjectStore], workers: Executor) -> Staged:
        self._check()
        store = open_store()
        listing = store.listing(self._request.path)
        schema = self._schema(store)
        items = (*listing.objects, *schema)
        check_apart((item.name, item.place) for item in items)
        self._make_room(items, listing.folders)
        self._fetch_all(store, items, workers)
        model = listing.objects[0].place if listing.is_single else PurePosixPath()
        size_bytes = sum(item.size_bytes for item in listing.objects)
        return Staged(model, size_bytes, len(listing.objects), SCHEMA if schema else None)

    def _schema(self, store: ObjectStore) -> tuple[StoredObject, ...]:
        path = self._request.schema_path
        if not path:
            return ()
        found: Listing = store.listing(path)
        if not found.is_single:
            raise ObjectNotFound(path, "the store: a schema is one object, this is a prefix")
        (only,) = found.objects
        return (StoredObject(only.name, SCHEMA, only.size_bytes, only.version),)

    def _make_room(
        self, items: tuple[StoredObject, ...], folders: tuple[PurePosixPath, ...]
    ) -> None:
        """All folders, before any file: nothing is made again once a stop has removed them."""
        self._check()
        self._staging.mkdir(parents=True)
        needed_bytes = sum(item.size_bytes for item in items)
        self._disk.give(self._share, needed_bytes, self._staging.parent)
        for folder in {*folders, *(item.place.parent for item in items)}:
            (self._staging / folder).mkdir(parents=True, exist_ok=True)

    def _fetch_all(
        self, store: ObjectStore, items: tuple[StoredObject, ...], workers: Executor
    ) -> None:
        """Raises the first error, after the fetches under way have ended."""
        self._report(0, self._share.total_bytes)
        fetches = [workers.submit(self._fetch, store, item) for item in items]
        first: BaseException | None = None
        for fetch in as_completed(fetches):
            if first is None and (first := fetch.exception()) is not None:
                self.stop()  # those that wait in line see it too; cancelled ones would be lost
        if first is not None:
            raise first
        self._check()

    def _fetch(self, store: ObjectStore, item: StoredObject) -> None:
        """One object; read again, up to three times in all, if its bytes came damaged."""
        for attempt in range(1, READS + 1):
            try:
                return self._write(store, item)
            except ReadCut:
                raise  # it was resumed as often as makes sense
            except ReadBroken:
                if attempt == READS:
                    raise
        return None

    def _write(self, store: ObjectStore, item: StoredObject) -> None:
        written_bytes = 0
        try:
            with (self._staging / item.place).open("wb") as file:
                for chunk in self._chunks(store, item):
                    file.write(chunk)
                    written_bytes += len(chunk)
                    self._count(len(chunk))
        except ReadBroken:
            self._count(-written_bytes)
            raise

    def _chunks(self, store: ObjectStore, item: StoredObject) -> Iterator[bytes]:
        """All of the object; a stop ends it before the next chunk."""
        self._check()
        patience = Patience(self._pauses_s, self._pause)
        with closing(read_whole(store, item, patience)) as read:
            for chunk in read:
                self._check()
                yield chunk

    def _pause(self, pause_s: float) -> None:
        self._stopped.wait(pause_s)
        self._check()

    def _count(self, more_bytes: int) -> None:
        with self._counting:
            self._share.done_bytes += more_bytes
            self._report(self._share.done_bytes, self._share.total_bytes)

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Stopped


@contextmanager
def disk_errors(folder: Path, needed_bytes: Callable[[], int]) -> Iterator[None]:
    """Turns what the local disk says into a StorageError."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(folder, needed_bytes()) from error
        raise DiskFailed(f"cannot write below {folder}: {error.strerror}") from error
