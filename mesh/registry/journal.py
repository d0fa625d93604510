"""What survives the end of a process that runs on the memory store: one file a key, in one folder.

A commit of several keys is one or nothing, also when the machine stops half-way: it is decided by
the renaming of one intent file that holds all of it, and then carried over to the files of its
keys. What is left undone (machine stopped, disk full) is done again before anything else is: at
`load`, or by the next `write`. Doing it twice does no harm, for it is always the last commit.

Keys come from users: a file's name is made of the key's harmless letters and its hash, and the key
itself stands inside. It must not know what keys and values mean.
"""

import json
import logging
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote

from mesh.core.errors import Unavailable

log = logging.getLogger(__name__)

Changes = Mapping[str, bytes | None]

INTENT = "commit.json"
ENTRY_SUFFIX = ".entry"
TEMPORARY_SUFFIX = ".tmp"
BROKEN_SUFFIX = ".broken"
READABLE_LETTERS = 120  # with hash and suffix far below the 255 bytes that a file's name may have


class Journal(Protocol):
    """Where the memory store writes down what must last. Its methods block: call them in a thread.

    One writer, one call at a time.
    """

    def concerns(self, key: str) -> bool:
        """Whether this key is to last."""
        ...

    def load(self) -> dict[str, bytes]:
        """All that lasted. Raises Unavailable."""
        ...

    def write(self, changes: Changes) -> None:
        """Stores one commit, None for a deleted key; returns once it would survive a power cut.

        Raises Unavailable, and then the commit has not happened.
        """
        ...


class FileJournal:
    """The keys that begin with one of `prefixes`, below `folder`, which is made if need be."""

    def __init__(self, folder: Path, prefixes: tuple[str, ...]) -> None:
        self._folder = folder
        self._prefixes = prefixes
        self._intent = folder / INTENT

    def concerns(self, key: str) -> bool:
        return key.startswith(self._prefixes)

    def load(self) -> dict[str, bytes]:
        """As the port says. A file that cannot be understood is set aside and logged."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for leftover in self._folder.glob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink()
            self._carry_over()
            found = [self._read_entry(path) for path in self._folder.glob(f"*{ENTRY_SUFFIX}")]
        except OSError as error:
            raise _unavailable("read", self._folder, error) from error
        return {key: value for key, value in filter(None, found) if self.concerns(key)}

    def write(self, changes: Changes) -> None:
        try:
            self._carry_over()
            self._decide(changes)
        except OSError as error:
            raise _unavailable("written", self._folder, error) from error
        try:
            self._carry_over()
        except OSError as error:  # It is decided, and safe in the intent file.
            log.warning(
                "stored keys lag behind", extra={"folder": str(self._folder)}, exc_info=error
            )

    def path_of(self, key: str) -> Path:
        """The file of a key, always directly in the folder."""
        digest = sha256(key.encode()).hexdigest()[:32]
        return self._folder / f"{quote(key, safe='')[:READABLE_LETTERS]}.{digest}{ENTRY_SUFFIX}"

    def _decide(self, changes: Changes) -> None:
        """Once this returns the commit counts; where it raises, nothing is left of it."""
        intent = {
            key: None if value is None else b64encode(value).decode()
            for key, value in changes.items()
        }
        try:
            _replace(self._intent, json.dumps(intent).encode())
            _sync_folder(self._folder)
        except OSError:
            self._intent.unlink(missing_ok=True)
            raise

    def _carry_over(self) -> None:
        """Brings the files of the last commit's keys up to it, where that was not finished."""
        for key, value in self._read_intent().items():
            if value is None:
                self.path_of(key).unlink(missing_ok=True)
            else:
                _replace(self.path_of(key), quote(key).encode() + b"\n" + value)
        if self._intent.exists():
            _sync_folder(self._folder)
            # Should a power cut bring it back: no later commit, which would have replaced it, was
            # decided.
            self._intent.unlink()

    def _read_intent(self) -> dict[str, bytes | None]:
        try:
            intent: dict[str, str | None] = json.loads(self._intent.read_bytes())
            return {
                key: None if value is None else b64decode(value, validate=True)
                for key, value in intent.items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            _set_aside(self._intent)
            return {}

    def _read_entry(self, path: Path) -> tuple[str, bytes] | None:
        head, newline, value = path.read_bytes().partition(b"\n")
        key = unquote(head.decode("ascii", errors="replace"))
        if not newline or self.path_of(key) != path:
            _set_aside(path)
            return None
        return key, value


def _replace(path: Path, content: bytes) -> None:
    """The file has the old content or the new, whatever happens."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    """Makes renamings last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _set_aside(path: Path) -> None:
    log.error("stored file is damaged, set aside", extra={"path": str(path)})
    path.rename(path.with_name(path.name + BROKEN_SUFFIX))


def _unavailable(done: str, folder: Path, error: OSError) -> Unavailable:
    return Unavailable(f"the store could not be {done}: {error.strerror or error} ({folder})")
