"""A bucket of an S3 store: what is under a path, and an object's bytes.

Asks by ListObjectsV2 and GetObject alone, whose errors have codes, and reads with If-Match, so that
the bytes are those of the object that was listed or none at all.
"""

import hashlib
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from mesh.storage.keys import S3Account
from mesh.storage.names import check_path, safe_place
from mesh.storage.port import (
    Listing,
    ObjectNotFound,
    ReadBroken,
    StoredObject,
    TooManyObjects,
)
from mesh.storage.s3_clients import S3Clients
from mesh.storage.s3_errors import Place, bucket_unnameable, in_words

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

CHUNK_BYTES = 256 * 1024
MOST_OBJECTS = 10_000
# Narrower than boto3, which also takes ARNs, and these name an endpoint of their own.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
# With these in an answer the ETag has the form of an MD5 and is none.
NO_MD5 = ("x-amz-server-side-encryption-customer-algorithm", "ibm-sse-kp-enabled")


class S3Store:
    """One bucket seen with one account. Blocking; safe to use from several threads."""

    def __init__(self, client: "S3Client", place: Place, most_objects: int) -> None:
        self._client = client
        self._place = place
        self._most_objects = most_objects

    def listing(self, path: str) -> Listing:
        """The object `path`, else those below `path/`; raises TooManyObjects above a bound."""
        name = check_path(path)
        with self._errors():
            return self._single(name) or self._prefix(path, f"{name.rstrip('/')}/")

    def read(self, item: StoredObject) -> Generator[bytes, None, None]:
        """The object's bytes, checked against its MD5 where its ETag is one."""
        with self._errors(item.name):
            answer = self._client.get_object(
                Bucket=self._place.bucket, Key=item.name, IfMatch=item.version
            )
            md5 = _md5(item.version, answer["ResponseMetadata"]["HTTPHeaders"])
            seen = hashlib.md5(usedforsecurity=False)
            with closing(answer["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    seen.update(chunk)
                    yield chunk
        if md5 not in ("", seen.hexdigest()):
            raise ReadBroken(item.name, "its MD5 is not its ETag")

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
            raise ReadBroken(name, "the connection ended before the object did") from error
        except ReadTimeoutError as error:
            if name:
                raise ReadBroken(name, "the store stopped sending") from error
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
        place = Place(key, name, account.endpoint_url, account.region)
        if BUCKET.fullmatch(name) is None:
            raise bucket_unnameable(place)
        return S3Store(self._clients.get(account), place, self._most_objects)

    def close(self) -> None:
        self._clients.close()


def _stored(found: "ObjectTypeDef", relative: str) -> StoredObject:
    name = found["Key"]
    return StoredObject(name, safe_place(name, relative), found["Size"], found["ETag"])


def _md5(version: str, headers: Mapping[str, str]) -> str:
    """The MD5 that an ETag is, or nothing: parts and some encryptions make other ETags."""
    plain = PLAIN_MD5.fullmatch(version)
    by_key = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    if plain is None or by_key or any(name in headers for name in NO_MD5):
        return ""
    return plain[1]
