"""storage-config: a folder with one JSON file a storage key, as a mounted secret looks.

A key is read when it is used, so that a changed secret needs no restart. What is in a file never
appears in an error, a log or a repr: problems name fields, not values.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mesh.core.ids import StorageKey
from mesh.core.spec import LOCAL_FILES
from mesh.storage.accounts import Account, NoAccount, read_account
from mesh.storage.port import KeyInvalid, KeyNotFound

POLL_S = 0.5
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
# What a Predictor may say otherwise than the entry. Not the endpoint: the credentials are its own.
OVERRIDES = frozenset({"type", "region", "bucket", "default_bucket"})


def key_or_default(key: str, parameters: Mapping[str, str] = NO_PARAMETERS) -> StorageKey:
    """The key that is meant; none means `default`, or `default_<type>` where a type is given."""
    kind = parameters.get("type", "")
    return StorageKey(key or (f"default_{kind}" if kind else "default"))


class StorageKeys:
    """The entries of one folder. The folder need not exist yet: then there are no keys."""

    def __init__(self, folder: Path, *, poll_s: float = POLL_S) -> None:
        self._folder = folder
        self._poll_s = poll_s

    def get(self, key: str, parameters: Mapping[str, str] = NO_PARAMETERS) -> Account:
        """The account of a key as its file is now, with a Predictor's parameters over it.

        No key means the default one. Blocking, like any read of a file. Raises KeyNotFound, or
        KeyInvalid with every problem.
        """
        key = key_or_default(key, parameters)
        if key == LOCAL_FILES:
            return NoAccount()
        content = _content(self._folder, key)
        if content is None:
            raise KeyNotFound(key)
        refused = sorted(parameters.keys() - OVERRIDES)
        if refused:
            raise KeyInvalid(key, [f"parameters.{name}: cannot be set here" for name in refused])
        return _account(key, {**_fields(key, content), **parameters})

    def changes(self) -> AsyncIterator[str]:
        """Names of keys that were added, changed or removed since this call, for ever.

        The first look is taken in the call itself (some small files), so that nothing that
        happens after it is missed; the later ones are taken in a thread.
        """
        return self._changes_since(_digests(self._folder))

    async def _changes_since(self, seen: Mapping[str, bytes]) -> AsyncIterator[str]:
        while True:
            await asyncio.sleep(self._poll_s)
            found = await asyncio.to_thread(_digests, self._folder)
            for key in sorted(seen.keys() | found.keys()):
                if seen.get(key) != found.get(key):
                    yield key
            seen = found


def is_key_name(key: str) -> bool:
    """Whether a key could be the name of a file in the folder, and no other path."""
    return bool(key) and not key.startswith(".") and "/" not in key and "\0" not in key


def _content(folder: Path, key: str) -> bytes | None:
    """A key's bytes; None where `key` is no plain file name, or no file has it."""
    if not is_key_name(key):
        return None
    path = folder / key
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:  # gone between the two, unreadable, or a name too long for a file
        return None


def _digests(folder: Path) -> dict[str, bytes]:
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return {}
    contents = ((name, _content(folder, name)) for name in names)
    return {
        name: hashlib.sha256(content).digest() for name, content in contents if content is not None
    }


def _fields(key: str, content: bytes) -> dict[str, Any]:
    fields, problem = _parsed(content)
    if problem:
        raise KeyInvalid(key, [problem])
    # `echo | base64` leaves a line end in a secret, which no credential has.
    return {name: text.strip() if isinstance(text, str) else text for name, text in fields.items()}


def _parsed(content: bytes) -> tuple[dict[str, Any], str]:
    """The fields, or what is wrong: as a value, since the errors of json hold the content."""
    try:
        fields = json.loads(content)
    except UnicodeDecodeError:
        return {}, "it is not UTF-8"
    except json.JSONDecodeError as error:
        return {}, f"it is not JSON ({error.msg} at line {error.lineno} column {error.colno})"
    except RecursionError:
        return {}, "it is nested too deeply"
    return (fields, "") if isinstance(fields, dict) else ({}, "it is not a JSON object")


def _account(key: str, fields: Mapping[str, Any]) -> Account:
    account, problems = read_account(fields)
    if account is None:
        raise KeyInvalid(key, problems)
    return account
