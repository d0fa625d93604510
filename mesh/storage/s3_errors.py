"""What boto3 raises, in words for the user: one table of S3's error codes, one of boto's own.

Only GetObject and ListObjectsV2 are answered with these codes; HeadObject says 403 or 404 and no
more, so that nothing here may rest on it.
"""

from collections.abc import Callable
from dataclasses import dataclass

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

from mesh.storage.port import (
    AccessRefused,
    BucketNotFound,
    ObjectChanged,
    StorageError,
    StoreFailed,
    StoreUnreachable,
)

LONGEST_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where it went wrong: what the texts are built from."""

    key: str
    bucket: str
    endpoint: str
    region: str
    is_anonymous: bool = False

    def __str__(self) -> str:
        return f"bucket {self.bucket!r}"


def _refused(what: str) -> Callable[[Place], StorageError]:
    return lambda place: AccessRefused(f"credentials refused: {what} (storage key {place.key!r})")


def _busy(what: str) -> Callable[[Place], StorageError]:
    return lambda place: StoreUnreachable(f"endpoint {place.endpoint} cannot answer now: {what}")


def _bucket_not_found(place: Place) -> StorageError:
    return BucketNotFound(f"bucket {place.bucket!r} does not exist (storage key {place.key!r})")


def bucket_unnameable(place: Place) -> StorageError:
    """The bucket's name is empty, or one that no bucket can have."""
    return BucketNotFound(
        f"bucket {place.bucket!r} is no valid name (storage key {place.key!r})"
        if place.bucket
        else f"storage key {place.key!r} has no bucket and the Predictor names none"
    )


def _access_denied(place: Place) -> StorageError:
    if place.is_anonymous:
        return AccessRefused(
            f"access to {place} denied without credentials (storage key {place.key!r})"
        )
    return AccessRefused(f"access to {place} denied (storage key {place.key!r})")


def _wrong_region(place: Place) -> StorageError:
    return StoreFailed(
        f"{place} is not in region {place.region!r} of endpoint {place.endpoint} "
        f"(storage key {place.key!r})"
    )


CODES: dict[str, Callable[[Place], StorageError]] = {
    "NoSuchBucket": _bucket_not_found,
    "InvalidBucketName": bucket_unnameable,
    "AccessDenied": _access_denied,
    "AllAccessDisabled": _access_denied,
    "AccountProblem": _access_denied,
    "SignatureDoesNotMatch": _refused("secret_access_key does not fit access_key_id"),
    "InvalidAccessKeyId": _refused("access_key_id is unknown"),
    "ExpiredToken": _refused("they have expired"),
    "InvalidToken": _refused("the token is not valid"),
    "RequestTimeTooSkewed": _refused("the clock here differs from the store's"),
    "AuthorizationHeaderMalformed": _wrong_region,
    "PermanentRedirect": _wrong_region,
    "TemporaryRedirect": _wrong_region,
    "301": _wrong_region,
    "SlowDown": _busy("SlowDown"),
    "ServiceUnavailable": _busy("ServiceUnavailable"),
    "InternalError": _busy("InternalError"),
    "RequestTimeout": _busy("RequestTimeout"),
    "500": _busy("status 500"),
    "502": _busy("status 502"),
    "503": _busy("status 503"),
    "504": _busy("status 504"),
}
OBJECT_CHANGED = frozenset({"NoSuchKey", "PreconditionFailed", "InvalidRange", "404", "412", "416"})


def in_words(error: BotoCoreError | ClientError, place: Place, name: str = "") -> StorageError:
    """The error as one of ours; `name` is the object that was being read, if one was."""
    if isinstance(error, ClientError):
        return _from_code(error, place, name)
    match error:
        case SSLError():
            return StoreUnreachable(f"certificate of endpoint {place.endpoint} is not trusted")
        case EndpointConnectionError() | ConnectTimeoutError() | ProxyConnectionError():
            return StoreUnreachable(f"endpoint {place.endpoint} cannot be reached")
        case ReadTimeoutError():
            return StoreUnreachable(f"endpoint {place.endpoint} gave no answer in time")
        case ParamValidationError():
            return bucket_unnameable(place)
        case _:
            what = type(error).__name__
            return StoreUnreachable(f"endpoint {place.endpoint} does not answer as S3 ({what})")


def _from_code(error: ClientError, place: Place, name: str) -> StorageError:
    told = error.response.get("Error", {})
    code = told.get("Code", "")
    if name and code in OBJECT_CHANGED:
        return ObjectChanged(name, str(place))
    if code in CODES:
        return CODES[code](place)
    message = "".join(filter(str.isprintable, told.get("Message", "")))[:LONGEST_MESSAGE]
    return StoreFailed(f"endpoint {place.endpoint} refused: {code} {message}".rstrip())
