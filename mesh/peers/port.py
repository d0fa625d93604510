"""What a node asks of another one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mesh.core.ids import ModelId, NodeId, Revision


@dataclass(frozen=True, slots=True)
class Ask:
    """A load on another node. `revision`: what the asker has seen of the store.

    `used_s`: when the model was used last, in seconds since the epoch; 0 is now.
    """

    model: ModelId
    purpose: str
    revision: Revision
    protected: frozenset[ModelId] = frozenset()
    used_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadedThere:
    """`since_s`: seconds since the epoch."""

    size_bytes: int
    since_s: float


@dataclass(frozen=True, slots=True)
class FailedThere:
    """The load was tried there and failed."""

    reason: str
    since_s: float


@dataclass(frozen=True, slots=True)
class NotThere:
    """It is not loaded there: the node is not fit for it, or another one is at it."""

    reason: str
    revision: Revision


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node knows of the store at a revision: records by their keys."""

    revision: Revision
    entries: Mapping[str, bytes]


Outcome = LoadedThere | FailedThere | NotThere


class Peers(Protocol):
    """`address` is a node's own, as its record has it. Every call may raise Unavailable."""

    async def hello(self, address: str) -> NodeId:
        """Who answers there; Unavailable where nobody does within a second."""
        ...

    async def ensure_loaded(self, address: str, ask: Ask) -> Outcome:
        """Waits until the model is Loaded there, or will not be. Once cancelled the load goes on,
        but nothing keeps it from being evicted."""
        ...

    async def recollect(self, address: str, store_id: str, revision: Revision) -> Memory | None:
        """What the node there knows of a store; None where that is nothing after `revision`."""
        ...

    async def farewell(self, address: str, node: NodeId) -> None:
        """This node, `node`, has left: returns once the other one has no call open to it."""
        ...

    async def until_lost(self, address: str) -> None:
        """Returns when there is no connection to the address, or there is none any more."""
        ...

    async def forget(self, address: str) -> None:
        """The node is gone: closes what leads to it."""
        ...

    async def close(self) -> None: ...
