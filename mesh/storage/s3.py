"""A bucket of an S3 store: what is under a path, and an object's bytes.

Asks by ListObjectsV2 and GetObject alone, whose errors have codes, and reads with If-Match, so that
the bytes are those of the object that was listed or none at all.
"""

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from mesh.storage.accounts import S3Account
from mesh.storage.checksums import strongest
from mesh.storage.names import check_path, safe_place
from mesh.storage.port import (
    Listing,
    ObjectNotFound,
    ReadBroken,
    ReadCut,
    Reading,
    StoredObject,
    StoreUnreachable,
    TooManyObjects,
)
from mesh.storage.s3_clients import S3Clients
from mesh.storage.s3_errors import Place, bucket_unnameable, in_words

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectTypeDef

CHUNK_BYTES = 256 * 1024
MOST_OBJECTS = 10_000
# Narrower than boto3, which also takes ARNs, and these name an endpoint of their own.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
# A listing is asked for once more after this; reads have their own ways (resumption.py).
PAUSE_S = 0.2


class S3Store:
    """One bucket seen with one account. Blocking; safe to use from several threads."""

    def __init__(self, client: "S3Client", place: Place, most_objects: int) -> None:
        self._client = client
        self._place = place
        self._most_objects = most_objects

    def listing(self, path: str) -> Listing:
        """The object `path`, else those below `path/`; raises TooManyObjects above a bound."""
        name = check_path(path)
        try:
            return self._listing(path, name)
        except StoreUnreachable:
            time.sleep(PAUSE_S)
            return self._listing(path, name)

    @contextmanager
    def read(self, item: StoredObject, start: int = 0) -> Iterator[Reading]:
        """The object's bytes from `start` on; raises ObjectChanged if it is not the listed one."""
        answer = self._get(item, start)
        with closing(answer["Body"]) as body:
            if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise ReadBroken(item.name, "the store does not send the rest of it")
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            chunks = self._chunks(body, item.name)
            yield Reading(chunks, None if start else strongest(item.version, headers))

    def _get(self, item: StoredObject, start: int) -> "GetObjectOutputTypeDef":
        bucket, name, version = self._place.bucket, item.name, item.version
        with self._errors(name):
            if not start:
                return self._client.get_object(Bucket=bucket, Key=name, IfMatch=version)
            rest = f"bytes={start}-"
            return self._client.get_object(Bucket=bucket, Key=name, IfMatch=version, Range=rest)

    def _chunks(self, body: "StreamingBody", name: str) -> Iterator[bytes]:
        with self._errors(name):
            yield from body.iter_chunks(CHUNK_BYTES)

    def _listing(self, path: str, name: str) -> Listing:
        with self._errors():
            return self._single(name) or self._prefix(path, f"{name.rstrip('/')}/")

    def _single(self, name: str) -> Listing | None:
        """An object of exactly this name: it sorts before all others that begin with it."""
        found = self._client.list_objects_v2(Bucket=self._place.bucket, Prefix=name, MaxKeys=1)
        for each in found.get("Contents", []):
            if each["Key"] == name and not name.endswith("/"):
                return Listing((_stored(each, name.rpartition("/")[2]),), is_single=True)
        return None

    def _prefix(self, path: str, prefix: str) -> Listing:
        objects, folders = list[StoredObject](), list[StoredObject]()
        for each in self._all(prefix):
            relative = each["Key"].removeprefix(prefix)
            if relative.endswith("/"):  # the mark of an empty folder, which some models need
                folders.append(_stored(each, relative.rstrip("/")))
            elif relative:
                objects.append(_stored(each, relative))
            if len(objects) + len(folders) > self._most_objects:
                raise TooManyObjects(path, self._most_objects)
        if not objects:
            raise ObjectNotFound(path, str(self._place))
        return Listing(tuple(objects), tuple(folder.place for folder in folders))

    def _all(self, prefix: str) -> Iterator["ObjectTypeDef"]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._place.bucket, Prefix=prefix):
            yield from page.get("Contents", [])

    @contextmanager
    def _errors(self, name: str = "") -> Iterator[None]:
        """Turns what boto3 raises into a StorageError; `name` is the object being read."""
        try:
            yield
        except (IncompleteReadError, ResponseStreamingError) as error:
            raise ReadCut(name, "the connection ended before the object did") from error
        except ReadTimeoutError as error:
            if name:
                raise ReadCut(name, "the store stopped sending") from error
            raise in_words(error, self._place) from error
        except (BotoCoreError, ClientError) as error:
            raise in_words(error, self._place, name) from error


class S3Stores:
    """Opens buckets; clients are kept by the content of their account."""

    def __init__(
        self, clients: S3Clients | None = None, *, most_objects: int = MOST_OBJECTS
    ) -> None:
        self._clients = clients or S3Clients()
        self._most_objects = most_objects

    def open(self, key: str, account: S3Account, bucket: str) -> S3Store:
        """`bucket`, where it is not empty, wins over the account's. `key` is for error texts."""
        name = account.bucket_or(bucket)
        place = Place(key, name, account.endpoint_url, account.region, account.is_anonymous)
        if BUCKET.fullmatch(name) is None:
            raise bucket_unnameable(place)
        return S3Store(self._clients.get(account), place, self._most_objects)

    def close(self) -> None:
        self._clients.close()


def _stored(found: "ObjectTypeDef", relative: str) -> StoredObject:
    name = found["Key"]
    return StoredObject(name, safe_place(name, relative), found["Size"], found["ETag"])
