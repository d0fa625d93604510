"""What a store says that an object's bytes hash to, and the hash of those that came.

S3 has two kinds: the ETag, which is an MD5 unless parts or an encryption made it another thing,
and additional checksums, each in a header of its own. Of what there is the strongest is checked.
CRC32C and CRC64NVME are not: Python has neither, and at its own speed they cost more than a pull.
"""

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PLAIN_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
# With these in an answer the ETag has the form of an MD5 and is none.
NO_MD5 = ("x-amz-server-side-encryption-customer-algorithm", "ibm-sse-kp-enabled")
# Bytes of each, so that nothing else in a header passes for one.
LENGTHS = {"SHA256": 32, "SHA1": 20, "MD5": 16, "CRC32": 4}


class Running(Protocol):
    """A hash over the bytes so far."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: bytes, /) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class Checksum:
    """The digest of a whole object; `algorithm` is one of LENGTHS."""

    algorithm: str
    digest: bytes

    def running(self) -> Running:
        if self.algorithm == "CRC32":
            return _Crc32()
        return hashlib.new(self.algorithm.lower(), usedforsecurity=False)


def strongest(etag: str, headers: Mapping[str, str]) -> Checksum | None:
    """The best checksum in an answer to a GET of a whole object; header names in lower case."""
    found = {
        "SHA256": _additional("sha256", headers),
        "SHA1": _additional("sha1", headers),
        "MD5": _md5(etag, headers),
        "CRC32": _additional("crc32", headers),
    }
    for algorithm, digest in found.items():
        if len(digest) == LENGTHS[algorithm]:
            return Checksum(algorithm, digest)
    return None


def _additional(name: str, headers: Mapping[str, str]) -> bytes:
    """One of S3's; nothing where it is of the parts' checksums and not of the object."""
    if headers.get("x-amz-checksum-type", "").upper() == "COMPOSITE":
        return b""
    try:
        return base64.b64decode(headers.get(f"x-amz-checksum-{name}", ""), validate=True)
    except ValueError:  # such as `<base64>-2`, which is of two parts
        return b""


def _md5(etag: str, headers: Mapping[str, str]) -> bytes:
    """The MD5 that an ETag is, or nothing: parts and some encryptions make other ETags."""
    plain = PLAIN_MD5.fullmatch(etag)
    by_key = headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    if plain is None or by_key or any(name in headers for name in NO_MD5):
        return b""
    return bytes.fromhex(plain[1])
