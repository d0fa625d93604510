"""Each error of S3 and of boto in words that name the place, and no more than that."""

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError as ParserError

from mesh.storage.port import (
    AccessRefused,
    BucketNotFound,
    ObjectChanged,
    StorageError,
    StoreFailed,
    StoreUnreachable,
)
from mesh.storage.s3_errors import CODES, Place, in_words

URL = "http://minio:9000"
PLACE = Place("k", "models", URL, "us-south")


def answered(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "GetObject")


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_code_has_words_that_say_where(code):
    error = in_words(answered(code, "secret"), PLACE)
    assert type(error) is not StorageError
    assert error.reason.isprintable()
    assert "secret" not in error.reason.replace("secret_access_key", "")
    assert any(each in error.reason for each in ("'k'", "'models'", URL))


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("ExpiredToken", AccessRefused, "credentials refused: they have expired (storage key 'k')"),
        ("AccessDenied", AccessRefused, "access to bucket 'models' denied (storage key 'k')"),
        ("NoSuchBucket", BucketNotFound, "bucket 'models' does not exist (storage key 'k')"),
        ("SlowDown", StoreUnreachable, f"endpoint {URL} cannot answer now: SlowDown"),
        ("503", StoreUnreachable, f"endpoint {URL} cannot answer now: status 503"),
        (
            "PermanentRedirect",
            StoreFailed,
            f"bucket 'models' is not in region 'us-south' of endpoint {URL} (storage key 'k')",
        ),
        ("Odd", StoreFailed, f"endpoint {URL} refused: Odd what it says"),
    ],
)
def test_code_in_words(code, kind, reason):
    error = in_words(answered(code, "what\n it\0 says"), PLACE)
    assert (type(error), error.reason) == (kind, reason)


def test_unknown_code_with_an_endless_message_is_cut():
    error = in_words(answered("Odd", "x" * 10_000), PLACE)
    assert len(error.reason) < 300


@pytest.mark.parametrize("code", ["NoSuchKey", "PreconditionFailed", "InvalidRange", "404", "416"])
def test_code_of_an_object_that_was_listed_means_that_it_changed(code):
    assert isinstance(in_words(answered(code), PLACE, "m"), ObjectChanged)
    assert isinstance(in_words(answered(code), PLACE), StoreFailed)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (
            SSLError(endpoint_url=URL, error="x"),
            StoreUnreachable,
            f"certificate of endpoint {URL} is not trusted",
        ),
        (
            EndpointConnectionError(endpoint_url=URL),
            StoreUnreachable,
            f"endpoint {URL} cannot be reached",
        ),
        (
            ConnectTimeoutError(endpoint_url=URL),
            StoreUnreachable,
            f"endpoint {URL} cannot be reached",
        ),
        (
            ProxyConnectionError(proxy_url="http://me:secret@proxy", error="x"),
            StoreUnreachable,
            f"endpoint {URL} cannot be reached",
        ),
        (
            ReadTimeoutError(endpoint_url=URL),
            StoreUnreachable,
            f"endpoint {URL} gave no answer in time",
        ),
        (
            ParamValidationError(report="x"),
            BucketNotFound,
            "bucket 'models' is no valid name (storage key 'k')",
        ),
        (
            ParserError("x"),
            StoreUnreachable,
            f"endpoint {URL} does not answer as S3 (ResponseParserError)",
        ),
    ],
)
def test_error_of_boto_in_words(error: BotoCoreError, kind, reason):
    found = in_words(error, PLACE)
    assert (type(found), found.reason) == (kind, reason)
