"""Whether the etcd that answers now is the one that answered before, and has not gone back in time.

Within one history the id of the cluster stays, and revision and raft term never fall, whichever
member answers. That holds for an answer against those that had come before its question was sent;
answers to questions that were under way at once may overtake each other, and say nothing.

A wiped etcd has the id of before where it is started as before. What tells it apart for good is the
mark: a random word under a key of the mesh's own, made by the first that misses it.

Nodes compare what they have seen of a store by its id, so that is the same for one that saw the
store of before, and one that was started since. Only where an etcd went back with its mark, as a
backup does that is restored, it depends on who has seen that.
"""

import logging
from dataclasses import dataclass, replace
from uuid import uuid4

from mesh.wire.pb import etcd_pb2 as pb

log = logging.getLogger(__name__)

# Beside the keys of the mesh, and hidden from them.
MARK = ".store"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of etcd; `life` counts how often it was found to have gone back."""

    life: int = 0
    cluster_id: int = 0
    revision: int = 0
    term: int = 0

    def goes_on_to(self, header: pb.ResponseHeader) -> bool:
        if self.cluster_id == 0:
            return True
        return (
            header.cluster_id == self.cluster_id
            and header.revision >= self.revision
            and header.raft_term >= self.term
        )


class History:
    """What all answers so far have told."""

    def __init__(self) -> None:
        self.known = Known()
        # In which life each mark was seen first: one for each loss of etcd's data.
        self._first_lives: dict[bytes, int] = {}

    def take(self, before: Known, header: pb.ResponseHeader) -> None:
        """An answer; `before` is what was known when its question was sent."""
        known = self.known
        if before.life != known.life:
            return  # Of the time before it went back, or the news of that come twice.
        if before.goes_on_to(header):
            self.known = replace(
                known,
                cluster_id=header.cluster_id,
                revision=max(known.revision, header.revision),
                term=max(known.term, header.raft_term),
            )
            return
        log.warning(
            "etcd went back in time",
            extra={
                "revision": header.revision,
                "before": before.revision,
                "term": header.raft_term,
            },
        )
        self.known = Known(known.life + 1, header.cluster_id, header.revision, header.raft_term)

    def saw(self, life: int, revision: int) -> None:
        """A commit was seen by a watch that began in that life."""
        if life == self.known.life and revision > self.known.revision:
            self.known = replace(self.known, revision=revision)

    def store_id(self, mark: bytes) -> str:
        """Of the store with this mark, which has just answered."""
        known = self.known
        lives = known.life - self._first_lives.setdefault(mark, known.life)
        return f"{known.cluster_id:x}-{mark.decode(errors='replace')}-{lives}"


def new_mark() -> bytes:
    return uuid4().hex.encode()
