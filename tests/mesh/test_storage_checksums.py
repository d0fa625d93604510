"""Which of a store's checksums is believed, and that it is computed as the store does."""

import base64
import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.storage.checksums import Checksum, strongest

CONTENT = b"a model"
MD5 = hashlib.md5(CONTENT, usedforsecurity=False)
ETAG = f'"{MD5.hexdigest()}"'


def header(name: str, digest: bytes) -> dict[str, str]:
    return {f"x-amz-checksum-{name}": base64.b64encode(digest).decode()}


SHA256 = header("sha256", hashlib.sha256(CONTENT).digest())
SHA1 = header("sha1", hashlib.sha1(CONTENT, usedforsecurity=False).digest())
CRC32 = header("crc32", zlib.crc32(CONTENT).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("etag", "headers", "algorithm"),
    [
        (ETAG, {**CRC32, **SHA1, **SHA256}, "SHA256"),
        (ETAG, {**CRC32, **SHA1}, "SHA1"),
        (ETAG, CRC32, "MD5"),
        ('"0123-2"', CRC32, "CRC32"),
    ],
)
def test_strongest_checksum_is_taken_and_is_that_of_the_content(etag, headers, algorithm):
    found = strongest(etag, headers)
    assert found is not None
    assert found.algorithm == algorithm
    running = found.running()
    for byte in CONTENT:
        running.update(bytes([byte]))
    assert running.digest() == found.digest


@pytest.mark.parametrize(
    ("etag", "headers"),
    [
        ("", {}),
        (ETAG.replace('"', '"x', 1), {}),
        (f'"{MD5.hexdigest()}-2"', {}),
        (ETAG, {"x-amz-server-side-encryption": "aws:kms"}),
        (ETAG, {"x-amz-server-side-encryption-customer-algorithm": "AES256"}),
        (ETAG, {"ibm-sse-kp-enabled": "true"}),
        ("", {**SHA256, "x-amz-checksum-type": "COMPOSITE"}),
        ("", {"x-amz-checksum-sha256": SHA256["x-amz-checksum-sha256"] + "-2"}),
        ("", {"x-amz-checksum-sha256": CRC32["x-amz-checksum-crc32"]}),
        ("", {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}),
    ],
)
def test_strongest_what_is_no_hash_of_the_content_is_not_taken_for_one(etag, headers):
    assert strongest(etag, headers) is None


def test_strongest_plain_encryption_and_the_type_of_a_whole_object_change_nothing():
    full = {**CRC32, "x-amz-checksum-type": "FULL_OBJECT"}
    assert strongest(ETAG, {"x-amz-server-side-encryption": "AES256"}) is not None
    assert strongest("", full) == Checksum("CRC32", zlib.crc32(CONTENT).to_bytes(4, "big"))


@given(st.text(), st.dictionaries(st.sampled_from(sorted({**SHA256, **CRC32})), st.text()))
def test_strongest_whatever_a_store_says_is_no_error(etag, headers):
    strongest(etag, headers)
