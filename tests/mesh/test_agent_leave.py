"""Where a node that leaves has its models loaded."""

from dataclasses import dataclass

from mesh.agent.leave import _decide
from mesh.core.ids import ModelId, NodeId
from mesh.core.placement import Load, Question
from tests.support.builders import model_of, node

MODEL = model_of("p", "a")


@dataclass
class Asked:
    """A host that answers with these nodes."""

    nodes: dict

    def question(self, model: ModelId, *, fill: bool = False, extra: bool = False) -> Question:
        return Question(MODEL, {}, self.nodes, 0.0, size_bytes=10, fill=fill, extra=extra)


def among(*records):
    return Asked({record.id: record for record in records})


def test_free_room_is_taken_before_something_is_evicted_however_busy_its_node_is():
    full = node("full", used_bytes=100)
    free = node("free", used_bytes=0, loading=64)
    decision = _decide(among(full, free), MODEL.id)
    assert isinstance(decision, Load)
    assert decision.node == NodeId("free")


def test_where_no_room_is_free_some_is_made():
    decision = _decide(among(node("full", used_bytes=100)), MODEL.id)
    assert isinstance(decision, Load)
    assert decision.node == NodeId("full")
