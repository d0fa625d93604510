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
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from mesh.storage.port import KeyInvalid, KeyNotFound

POLL_S = 0.5
NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})
# What a Predictor may say otherwise than the entry. Not the endpoint: the credentials are its own.
OVERRIDES = frozenset({"type", "region", "bucket", "default_bucket"})


class S3Account(BaseModel):
    """One entry of type s3. Equal entries are equal accounts, so that it can key a cache."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")

    type: Literal["s3"]
    access_key_id: SecretStr = Field(min_length=1)
    secret_access_key: SecretStr = Field(min_length=1)
    endpoint_url: str = Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")
    region: str = Field(default="us-east-1", min_length=1)
    bucket: str = ""
    # The older name of `bucket`, which wins.
    default_bucket: str = ""
    certificate: str = ""

    @field_validator("certificate")
    @classmethod
    def _is_pem(cls, value: str) -> str:
        if value and "-----BEGIN CERTIFICATE-----" not in value:
            raise ValueError("is not a PEM certificate")
        return value

    def bucket_or(self, wanted: str) -> str:
        """The bucket to use where a Predictor asks for `wanted` (empty: it names none)."""
        return wanted or self.bucket or self.default_bucket


class StorageKeys:
    """The entries of one folder. The folder need not exist yet: then there are no keys."""

    def __init__(self, folder: Path, *, poll_s: float = POLL_S) -> None:
        self._folder = folder
        self._poll_s = poll_s

    def get(self, key: str, parameters: Mapping[str, str] = NO_PARAMETERS) -> S3Account:
        """The account of a key as its file is now, with a Predictor's parameters over it.

        Blocking, like any read of a file. Raises KeyNotFound, or KeyInvalid with every problem.
        """
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


def _content(folder: Path, key: str) -> bytes | None:
    """A key's bytes; None where `key` is no plain file name, or no file has it."""
    if not key or key.startswith(".") or "/" in key or "\0" in key:
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


def _account(key: str, fields: Mapping[str, Any]) -> S3Account:
    try:
        return S3Account.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
    # Raised out here, so that the error that holds the input is not its context.
    problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in found]
    raise KeyInvalid(key, problems)
