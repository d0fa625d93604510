"""What is remembered of nodes past their lives, so that one that restarts is not taken for new.

A node has a new id in each life, and its records go with it. Its address stays: by that it is known
when a node was first there, and which models failed there in an earlier life. Both are forgotten
after `FAILURE_MEMORY_S` without a node at the address.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.core.ids import ModelId
from mesh.core.placement import FAILURE_MEMORY_S, remembered_failures
from mesh.core.records import CopyRecord, NodeRecord

NONE: Mapping[str, float] = {}


@dataclass(slots=True)
class Lives:
    """`first_seen_s` and `lost(model)` are for `placement.Question`."""

    first_seen_s: dict[str, float] = field(default_factory=dict)
    _gone_s: dict[str, float] = field(default_factory=dict)
    _lost: dict[ModelId, dict[str, float]] = field(default_factory=dict)

    def came(self, node: NodeRecord) -> None:
        """A node is seen, for the first time or again."""
        if node.address:
            self.first_seen_s.setdefault(node.address, node.joined_s)
            self._gone_s.pop(node.address, None)

    def went(self, node: NodeRecord, copies: Iterable[CopyRecord], *, now: float) -> None:
        """A node is gone; `copies` are those that it had, before they are dropped."""
        if not node.address:
            return
        self._gone_s[node.address] = now
        for copy in remembered_failures(copies, now=now):
            self._lost.setdefault(copy.model, {})[node.address] = copy.since_s

    def lost(self, model: ModelId) -> Mapping[str, float]:
        """When the model failed on nodes that are gone, by address."""
        return self._lost.get(model, NONE)

    def models(self) -> tuple[ModelId, ...]:
        """Those that failed on nodes that are gone."""
        return tuple(self._lost)

    def forgive(self, model: ModelId) -> None:
        """The failures of this model do not count any more."""
        self._lost.pop(model, None)

    def expire(self, now: float) -> None:
        """Forgets what is old; once in a while is enough."""
        for address in [at for at, s in self._gone_s.items() if now - s >= FAILURE_MEMORY_S]:
            del self._gone_s[address]
            self.first_seen_s.pop(address, None)
        for model, failures in list(self._lost.items()):
            kept = {at: s for at, s in failures.items() if now - s < FAILURE_MEMORY_S}
            if kept:
                self._lost[model] = kept
            else:
                del self._lost[model]
