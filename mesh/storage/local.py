"""A folder of this machine as a store: models that are on its disk, or on one that is mounted.

Which folders may be one is the operator's to say, not of whoever writes storage keys: a root must
lie in a folder that is allowed. Links are followed, and none leads out of the root. Files are
copied, never linked, since what changes a file in place would change the loaded model with it.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mesh.core.spec import LOCAL_FILES
from mesh.storage.accounts import LocalAccount
from mesh.storage.names import check_path, safe_place
from mesh.storage.port import (
    AccessRefused,
    BucketNotFound,
    KeyInvalid,
    Listing,
    ObjectChanged,
    ObjectNotFound,
    Reading,
    StoredObject,
    StoreFailed,
    TooManyObjects,
    UnsafeName,
)

CHUNK_BYTES = 1024 * 1024
MOST_OBJECTS = 10_000
# A file that is not there, however the path to it ends.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
# Neither through a link that has come since the check, nor waiting for a pipe's writer.
READ_ONLY = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LocalStore:
    """One root, resolved. Blocking; safe to use from several threads.

    `within` are the folders that its files must be in, if that is not the root itself.
    """

    def __init__(
        self,
        key: str,
        root: Path,
        within: Sequence[Path] = (),
        *,
        most_objects: int = MOST_OBJECTS,
    ) -> None:
        self._key = key
        self._root = root
        self._within = within or (root,)
        self._most_objects = most_objects

    def listing(self, path: str) -> Listing:
        """The file `path`, or all files below the folder; raises TooManyObjects above a bound."""
        name = check_path(path)
        with self._errors():
            found = self._found(path, name)
            status = found.stat()
            if stat.S_ISREG(status.st_mode) and not name.endswith("/"):
                return Listing((_stored(name, PurePosixPath(name).name, status),), is_single=True)
            if not stat.S_ISDIR(status.st_mode):
                raise ObjectNotFound(path, self._where)
            return self._below(path, name.rstrip("/"), found)

    @contextmanager
    def read(self, item: StoredObject, start: int = 0) -> Iterator[Reading]:
        """The file's bytes from `start` on; raises ObjectChanged if it is not what was listed."""
        with self._errors(item):
            descriptor = os.open(self._inside(item.name), READ_ONLY)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            file.seek(start)
            yield Reading(self._chunks(file.fileno(), item))

    def _chunks(self, descriptor: int, item: StoredObject) -> Iterator[bytes]:
        """Looks at the file before and after, so that what it gives was there at one time."""
        with self._errors(item):
            self._check_same(descriptor, item)
            while chunk := os.read(descriptor, CHUNK_BYTES):
                yield chunk
            self._check_same(descriptor, item)

    def _check_same(self, descriptor: int, item: StoredObject) -> None:
        if _version(os.fstat(descriptor)) != item.version:
            raise ObjectChanged(item.name, self._where)

    def _below(self, path: str, top: str, folder: Path) -> Listing:
        objects, folders = list[StoredObject](), list[PurePosixPath]()
        for name, status in self._walk(top, folder):
            relative = name.removeprefix(f"{top}/")
            if stat.S_ISDIR(status.st_mode):
                folders.append(safe_place(name, relative))
            else:
                objects.append(_stored(name, relative, status))
            if len(objects) + len(folders) > self._most_objects:
                raise TooManyObjects(path, self._most_objects)
        if not objects:
            raise ObjectNotFound(path, self._where)
        return Listing(tuple(objects), tuple(folders))

    def _walk(self, top: str, folder: Path) -> Iterator[tuple[str, os.stat_result]]:
        """All that is below, links followed; links that lead round in circles never end."""
        waiting = [(top, folder)]
        while waiting:
            above, folder = waiting.pop()
            for entry in sorted(os.listdir(folder)):
                name = f"{above}/{entry}"
                found = self._entry(name, folder / entry)
                status = found.stat()
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((name, found))
                elif not stat.S_ISREG(status.st_mode):
                    raise UnsafeName(name, "it is neither a file nor a folder")
                yield name, status

    def _entry(self, name: str, path: Path) -> Path:
        """Where an entry of a folder really is."""
        try:
            found = self._inside(name, path)
        except OSError as error:
            if path.is_symlink() and error.errno in {*ABSENT, errno.ELOOP}:
                raise UnsafeName(name, "it is a link that leads nowhere") from error
            if error.errno in ABSENT:
                raise ObjectChanged(name, self._where) from error
            raise
        if path.parent.is_relative_to(found):
            raise UnsafeName(name, "it is a link to a folder that it is in")
        return found

    def _found(self, path: str, name: str) -> Path:
        try:
            return self._inside(name.rstrip("/"))
        except OSError as error:
            if error.errno in ABSENT:
                raise ObjectNotFound(path, self._where) from error
            raise

    def _inside(self, name: str, path: Path | None = None) -> Path:
        """Where `name` (at `path`) really is; raises UnsafeName if that is not where it may be.

        Nothing is said of what is elsewhere, not even whether it exists.
        """
        place = path or self._root / name
        if not self._may_be(place):
            raise AccessRefused(f"file {str(place)!r} is not in LOCAL_STORAGE_ROOTS")
        real = Path(os.path.realpath(place, strict=True))
        if not self._may_be(real):
            raise UnsafeName(name, "it is a link that leads out of its folder")
        return real

    def _may_be(self, place: Path) -> bool:
        return any(place.is_relative_to(folder) for folder in self._within)

    @property
    def _where(self) -> str:
        return f"folder {str(self._root)!r}"

    @contextmanager
    def _errors(self, item: StoredObject | None = None) -> Iterator[None]:
        """Turns what the system says into a StorageError; `item` is the file being read."""
        try:
            yield
        except OSError as error:
            if item is not None and error.errno in ABSENT:
                raise ObjectChanged(item.name, self._where) from error
            place, key = str(error.filename or self._root), f"(storage key {self._key!r})"
            if isinstance(error, PermissionError):
                raise AccessRefused(f"access to {place!r} denied {key}") from error
            raise StoreFailed(f"{place!r} cannot be read: {error.strerror} {key}") from error


def open_local(key: str, account: LocalAccount, bucket: str, allowed: Sequence[Path]) -> LocalStore:
    """The store of an account whose root is in one of the `allowed` folders."""
    if bucket:
        raise KeyInvalid(key, ["type local has no buckets, and the Predictor names one"])
    if not allowed:
        raise AccessRefused(
            f"type local is not allowed here, LOCAL_STORAGE_ROOTS is empty (storage key {key!r})"
        )
    root = Path(os.path.realpath(account.root))
    if not any(root.is_relative_to(os.path.realpath(folder)) for folder in allowed):
        raise AccessRefused(
            f"folder {str(account.root)!r} is not in LOCAL_STORAGE_ROOTS (storage key {key!r})"
        )
    if not root.is_dir():
        raise BucketNotFound(f"folder {str(account.root)!r} does not exist (storage key {key!r})")
    return LocalStore(key, root)


def open_files(allowed: Sequence[Path]) -> LocalStore:
    """The files that are named by their own path, in one of the `allowed` folders."""
    if not allowed:
        raise AccessRefused("file:// is not allowed here, LOCAL_STORAGE_ROOTS is empty")
    within = (*allowed, *(Path(os.path.realpath(folder)) for folder in allowed))
    return LocalStore(LOCAL_FILES, Path("/"), within)


def _stored(name: str, relative: str, status: os.stat_result) -> StoredObject:
    return StoredObject(name, safe_place(name, relative), status.st_size, _version(status))


def _version(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
