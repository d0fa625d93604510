"""What etcd's refusals mean to us: one table, and one error that says it.

etcd tells its errors apart by fixed texts, which its own clients compare; the code says less. An
error that the table does not know is judged by its code. Texts are compared whole, here alone.
"""

from enum import Enum, auto

import grpc
import grpc.aio

from mesh.core.errors import Unavailable


class Kind(Enum):
    """What a caller can do about it."""

    AWAY = auto()  # nobody answered, or in vain: the call may have been carried out
    NOT_DONE = auto()  # it was certainly not carried out: another member, or later
    TOKEN = auto()  # the token is not valid any more: get another
    REFUSED = auto()  # user, password or permission
    NO_USERS = auto()  # etcd has no users switched on
    LEASE_GONE = auto()
    COMPACTED = auto()
    TOO_LARGE = auto()
    FULL = auto()
    OTHER = auto()


KNOWN = {
    "etcdserver: no leader": Kind.NOT_DONE,
    "etcdserver: too many requests": Kind.NOT_DONE,
    "etcdserver: invalid auth token": Kind.TOKEN,
    "etcdserver: revision of auth store is old": Kind.TOKEN,
    "etcdserver: authentication failed, invalid user ID or password": Kind.REFUSED,
    "etcdserver: user name is empty": Kind.REFUSED,
    "etcdserver: user name not found": Kind.REFUSED,
    "etcdserver: permission denied": Kind.REFUSED,
    "etcdserver: authentication is not enabled": Kind.NO_USERS,
    "etcdserver: requested lease not found": Kind.LEASE_GONE,
    "etcdserver: mvcc: required revision has been compacted": Kind.COMPACTED,
    "etcdserver: request is too large": Kind.TOO_LARGE,
    "etcdserver: mvcc: database space exceeded": Kind.FULL,
}
AWAY_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
}


class EtcdFailure(Unavailable):
    """A call to etcd that came to nothing; whoever does not look at `kind` has Unavailable."""

    def __init__(self, kind: Kind, cause: str) -> None:
        super().__init__(_message(kind, cause))
        self.kind = kind
        self.cause = cause


def failure(error: grpc.aio.AioRpcError) -> EtcdFailure:
    return EtcdFailure(_kind(error.code(), error.details() or ""), _told(error))


def away(cause: str) -> EtcdFailure:
    return EtcdFailure(Kind.AWAY, cause)


def _kind(code: grpc.StatusCode, text: str) -> Kind:
    if (kind := KNOWN.get(text)) is not None:
        return kind
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return Kind.TOKEN
    if code is grpc.StatusCode.PERMISSION_DENIED:
        return Kind.REFUSED
    return Kind.AWAY if code in AWAY_CODES else Kind.OTHER


def _told(error: grpc.aio.AioRpcError) -> str:
    return error.details() or error.code().name


def _message(kind: Kind, cause: str) -> str:
    match kind:
        case Kind.REFUSED | Kind.TOKEN:
            return f"etcd refuses this user: {cause}"
        case Kind.FULL:
            return f"etcd is full: {cause}"
        case Kind.AWAY | Kind.NOT_DONE:
            return f"etcd does not answer: {cause}"
        case _:
            return f"etcd refuses: {cause}"
