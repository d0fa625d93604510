"""A Loaded copy on another node, as the router uses it."""

from dataclasses import dataclass

from mesh.agent.calls import UNTOLD, Calls, Gate, Metadata
from mesh.core.ids import ModelId, NodeId

# Says to the other node that a call was passed on, and to which model: see wml_peer.proto.
MODEL_HEADER = "wml-model-bin"


@dataclass(slots=True, eq=False, weakref_slot=True)
class RemoteCopy:
    """`in_flight` counts what this node sent there, and only that.

    What methods its runtime serves, and how many calls at a time, the other node knows.
    """

    id: ModelId
    node: NodeId
    address: str
    in_flight: int = 0
    calls: Calls = UNTOLD
    gate: Gate | None = None

    @property
    def hop(self) -> Metadata:
        return ((MODEL_HEADER, self.id.encode()),)

    def enter(self, now: float) -> None:
        self.in_flight += 1

    def touch(self, now: float) -> None:
        pass

    def took(self, time_ms: float) -> None:
        pass  # the other node counts it

    def leave(self) -> None:
        self.in_flight -= 1
