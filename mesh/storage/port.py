"""What a pull needs of an object store, and all that can go wrong with one.

A store is blocking: it is called in threads, by several at a time. It says what is under a path and
gives an object's bytes; it writes no file and knows no target.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from mesh.storage.checksums import Checksum


class StorageError(Exception):
    """The root. `reason` is one sentence for the user and never holds a credential."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class KeyNotFound(StorageError):
    """storage-config has no entry of that name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"Storage secretKey not found: {key}")
        self.key = key


class KeyInvalid(StorageError):
    """The entry is there but cannot be used: `problems` are all of them, with their fields."""

    def __init__(self, key: str, problems: Sequence[str]) -> None:
        super().__init__(f"storage key {key!r} is not usable: {'; '.join(problems)}")
        self.key = key
        self.problems = tuple(problems)


class AccessRefused(StorageError):
    """The store does not take the credentials, or does not let them at the object."""


class BucketNotFound(StorageError):
    """There is no such bucket, or no bucket can have that name."""


class ObjectNotFound(StorageError):
    """Nothing is stored under the path."""

    def __init__(self, path: str, where: str) -> None:
        super().__init__(f"no object or prefix {path!r} in {where}")
        self.path = path


class ObjectChanged(StorageError):
    """The object was replaced or removed between the listing and the end of the pull."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"object {name!r} in {where} changed while it was pulled")
        self.name = name


class ReadBroken(StorageError):
    """An object's bytes came damaged. Reading it once more may help."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"object {name!r} came broken: {what}")
        self.name = name


class ReadCut(ReadBroken):
    """An object's bytes ended before the object did. Reading on from there may help."""


class UnsafeName(StorageError):
    """An object whose name would leave the target, or cannot be a file in it."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"object name {name!r} is not safe as a file: {why}")
        self.name = name


class TooManyObjects(StorageError):
    """A prefix holds more than a model can have: most likely the path is wrong."""

    def __init__(self, path: str, limit: int) -> None:
        super().__init__(f"prefix {path!r} holds more than {limit} objects")
        self.limit = limit


class StoreUnreachable(StorageError):
    """No connection, no answer in time, or the store says that it cannot answer now."""


class StoreFailed(StorageError):
    """The store refused for a reason that has no word of its own here."""


class DiskFull(StorageError):
    """The files have no room on the local disk."""

    def __init__(self, folder: object, needed_bytes: int, free_bytes: int | None = None) -> None:
        free = "" if free_bytes is None else f", {free_bytes} are free"
        super().__init__(f"disk full: {folder} has no room for {needed_bytes} bytes{free}")
        self.needed_bytes = needed_bytes


class DiskFailed(StorageError):
    """The local disk refused for another reason than room."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its name in the store, its place below the target, and which content it has.

    `version` is what the store calls this very content (S3: the ETag); a read of another one fails.
    """

    name: str
    place: PurePosixPath
    size_bytes: int
    version: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is under a path: one object (`is_single`) or those of a prefix, and empty folders."""

    objects: tuple[StoredObject, ...]
    folders: tuple[PurePosixPath, ...] = ()
    is_single: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What comes of an object: `chunks` may be short; `checksum` is of all of it, if it is known.

    Iterating raises ReadCut where the bytes end early, and other StorageErrors.
    """

    chunks: Iterator[bytes]
    checksum: Checksum | None = None


class ObjectStore(Protocol):
    """One bucket, or whatever a store type calls it, opened with one account."""

    def listing(self, path: str) -> Listing:
        """What is stored under `path`; an object of exactly that name wins over a prefix.

        Raises ObjectNotFound where there is nothing, UnsafeName where a name would leave the
        target.
        """
        ...

    def read(self, item: StoredObject, start: int = 0) -> AbstractContextManager[Reading]:
        """The bytes of a listed object from the byte `start` on; leaving drops the connection.

        Raises ObjectChanged if it is no longer what was listed, ReadBroken if the store cannot
        begin at `start`.
        """
        ...
