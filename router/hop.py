"""How nodes say that a call which was passed on was not begun: see wml_peer.proto."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import grpc.aio

# What nodes say to each other in metadata begins so.
OF_NODES = "wml-"
OUTCOME = "wml-outcome"
REVISION = "wml-revision"
# In the initial metadata of a stream: this node has begun it.
ACCEPTED = "wml-accepted"

Metadata = tuple[tuple[str, str], ...]


class Why(Enum):
    """Why a node did not begin a call: it has no such copy, its runtime could not be reached, or as
    many calls as may wait for the copy already."""

    NOT_HERE = "not-here"
    NOT_SENT = "not-sent"
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class NotBegun:
    """`revision` is that of the store which the node has seen."""

    why: Why
    revision: int


def outcome(error: grpc.aio.AioRpcError) -> NotBegun | None:
    """What another node said of a call; None where it was executed, as far as anybody knows."""
    trailing: Any = error.trailing_metadata() or ()
    said = {key: value for key, value in trailing if key.startswith(OF_NODES)}
    try:
        why = Why(said.get(OUTCOME))
    except ValueError:
        return None
    revision = str(said.get(REVISION, "0"))
    return NotBegun(why, int(revision) if revision.isdigit() else 0)


def trailer(said: NotBegun) -> Metadata:
    """What a node ends such a call with."""
    return ((OUTCOME, said.why.value), (REVISION, str(said.revision)))
