"""A Loaded copy on another node, as the router uses it."""

from dataclasses import dataclass

from mesh.core.ids import ModelId, NodeId

Metadata = tuple[tuple[str, str | bytes], ...]

# Says to the other node that a call was passed on, and to which model: see wml_peer.proto.
MODEL_HEADER = "wml-model-bin"


@dataclass(slots=True, eq=False)
class RemoteCopy:
    """`in_flight` counts what this node sent there, and only that."""

    id: ModelId
    node: NodeId
    address: str
    in_flight: int = 0

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
