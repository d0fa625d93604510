"""What placement is asked, with all that this node knows: the view, who cannot be reached, what
models took before, and what is remembered of nodes that are gone.
"""

from collections.abc import Callable, Mapping

from mesh.agent.errands import Errands
from mesh.agent.reach import Reach
from mesh.core.ids import ModelId, NodeId
from mesh.core.lives import Lives
from mesh.core.placement import Constraint, Question
from mesh.core.records import BackingModel, CopyRecord, NodeRecord, Record
from mesh.core.view import View


class Questions:
    """`wall_s`: seconds since the epoch. It reads the view's changes from its making on."""

    def __init__(
        self,
        view: View,
        reach: Reach,
        errands: Errands,
        constraints: Mapping[str, Constraint],
        wall_s: Callable[[], float],
    ) -> None:
        self._view = view
        self._reach = reach
        self._errands = errands
        self._constraints = constraints
        self._wall_s = wall_s
        self._lives = Lives()
        self._sizes: dict[ModelId, int] = {}
        view.readers.add(self._read)

    def ask(self, model: ModelId, *, fill: bool, extra: bool) -> Question | None:
        """None where the model is not known. `fill`, `extra`: as Question has them."""
        record = self._view.models.get(model)
        if record is None:
            return None
        copies = self._view.copies(model)
        lost = frozenset(node for node in copies if node not in self._view.nodes)
        return Question(
            record,
            copies,
            self._view.nodes,
            self._wall_s(),
            excluded=lost | self._reach.down | self._errands.resting(model),
            size_bytes=self._sizes.get(model, 0),
            fill=fill,
            extra=extra,
            constraints=self._constraints,
            coming=self._view.loading,
            first_seen_s=self._lives.first_seen_s,
            lost_failures=self._lives.lost(model),
            runtimes=self._view.runtimes,
        )

    def going(self, node: NodeId) -> None:
        """A node is about to leave the view, with its copies."""
        record = self._view.nodes.get(node)
        if record is not None:
            held = [self._view.copies(model)[node] for model in self._view.held(node)]
            self._lives.went(record, held, now=self._wall_s())

    def forgive(self, model: ModelId) -> None:
        """What failed on nodes that are gone does not count any more."""
        self._lives.forgive(model)

    def forgive_key(self, key: str) -> None:
        """The same for all models with this storage key."""
        for model in self._lives.models():
            record = self._view.models.get(model)
            if record is not None and record.common_source.storage_key == key:
                self._lives.forgive(model)

    def has_failed_before(self, model: ModelId) -> bool:
        """Whether it failed on nodes that are gone, and that counts."""
        return bool(self._lives.lost(model))

    def tick(self) -> None:
        """Forgets what is old; once in a while is enough."""
        self._lives.expire(self._wall_s())

    def _read(self, kind: type[Record], key: tuple[str, ...]) -> None:
        if kind is CopyRecord:
            model, node = ModelId(key[0]), NodeId(key[1])
            copy = self._view.copies(model).get(node)
            if copy is not None and copy.size_bytes:
                self._sizes[model] = copy.size_bytes
        elif kind is NodeRecord:
            record = self._view.nodes.get(NodeId(key[0]))
            if record is not None:
                self._lives.came(record)
        elif kind is BackingModel and ModelId(key[0]) not in self._view.models:
            self._sizes.pop(ModelId(key[0]), None)
            self._lives.forgive(ModelId(key[0]))
