"""The methods of etcd that are called here, and how their requests are put together.

A prefix is a range of keys: from itself to the first key that does not begin with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, assert_never

from mesh.registry.port import Absent, Check, Delete, Exists, Op, Put, Unchanged
from mesh.wire.pb import etcd_pb2 as pb

Answer = TypeVar("Answer")

# All keys from the first on.
TO_THE_END = b"\0"


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A method.

    `is_current`: its answers' header is as new as the question, on whichever member. `is_stream`:
    etcd has it as a stream, of which one question and one answer are used.
    """

    path: str
    answer: type[Answer]
    is_current: bool = False
    is_stream: bool = False


RANGE = Call("/etcdserverpb.KV/Range", pb.RangeResponse, is_current=True)
TXN = Call("/etcdserverpb.KV/Txn", pb.TxnResponse, is_current=True)
WATCH = Call("/etcdserverpb.Watch/Watch", pb.WatchResponse)
GRANT = Call("/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse)
REVOKE = Call("/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse)
KEEP_ALIVE = Call("/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse, is_stream=True)
AUTHENTICATE = Call("/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse)

Request = Any  # a message of `pb`


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the mesh: each behind the root prefix, which no other user of the etcd has."""

    root: bytes

    def encode(self, key: str) -> bytes:
        return self.root + key.encode()

    def decode(self, key: bytes) -> str:
        """Of a key that is no text, and somebody else's: something unlike any other."""
        return key[len(self.root) :].decode(errors="backslashreplace")

    def below(self, prefix: str) -> tuple[bytes, bytes]:
        """The first key with this prefix and the first after the last."""
        first = self.encode(prefix)
        return first or b"\0", _after(first)


def _after(prefix: bytes) -> bytes:
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else TO_THE_END


def no_change(key: bytes) -> pb.RequestOp:
    """Deletes a key that is not there, so that a transaction is no mere read.

    Before 3.5.5 etcd ends where who asked for such a read gives up in the midst of it (etcd issue
    14110).
    """
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


def one_key(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key))


def operation(op: Op, keys: Keys) -> pb.RequestOp:
    key = keys.encode(op.key)
    match op:
        case Put(_, value, lease):
            return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease or 0))
        case Delete():
            return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
        case _ as never:
            assert_never(never)


def comparison(check: Check, keys: Keys) -> pb.Compare:
    key = keys.encode(check.key)
    match check:
        case Absent():
            return pb.Compare(key=key, target=pb.Compare.CREATE, create_revision=0)
        case Exists():
            return pb.Compare(
                key=key, target=pb.Compare.CREATE, result=pb.Compare.GREATER, create_revision=0
            )
        case Unchanged(_, revision):
            # An absent key has 0 as its revision, and is not to count as unchanged.
            expected = revision if revision > 0 else -1
            return pb.Compare(key=key, target=pb.Compare.MOD, mod_revision=expected)
        case _ as never:
            assert_never(never)


def first_failed(checks: Sequence[Check], found: Sequence[pb.ResponseOp]) -> str:
    """The key of the first check that fails; `found` is what each key held when one of them did."""
    for check, response in zip(checks, found, strict=True):
        revisions = [entry.mod_revision for entry in response.response_range.kvs]
        match check:
            case Absent():
                holds = not revisions
            case Exists():
                holds = bool(revisions)
            case Unchanged(_, revision):
                holds = revisions == [revision]
            case _ as never:
                assert_never(never)
        if not holds:
            return check.key
    raise AssertionError("etcd says that a check failed, and shows none that did")
