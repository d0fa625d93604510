"""How nodes say that a call which was passed on was not begun: see wml_peer.proto."""

from dataclasses import dataclass
from typing import Any

import grpc.aio

OUTCOME = "wml-outcome"
REVISION = "wml-revision"
NOT_HERE = "not-here"
NOT_SENT = "not-sent"
# In the initial metadata of a stream: this node has begun it.
ACCEPTED = "wml-accepted"

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NotBegun:
    """`is_sent_nowhere`: the node has the copy but not its runtime; else it has no such copy.

    `revision` is that of the store which the node has seen.
    """

    is_sent_nowhere: bool
    revision: int


def outcome(error: grpc.aio.AioRpcError) -> NotBegun | None:
    """What another node said of a call; None where it was executed, as far as anybody knows."""
    trailing: Any = error.trailing_metadata() or ()
    said = {key: value for key, value in trailing if key.startswith("wml-")}
    if said.get(OUTCOME) not in (NOT_HERE, NOT_SENT):
        return None
    revision = str(said.get(REVISION, "0"))
    return NotBegun(said[OUTCOME] == NOT_SENT, int(revision) if revision.isdigit() else 0)


def trailer(said: NotBegun) -> Metadata:
    """What a node ends such a call with."""
    word = NOT_SENT if said.is_sent_nowhere else NOT_HERE
    return ((OUTCOME, word), (REVISION, str(said.revision)))
