"""The store as a node sees it: every record, and the indexes that decisions need.

It takes records one by one, in any order; a copy may be seen before its model, a Predictor before
either. `put` and `drop` return the names of the Predictors that the change concerns.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    NodeState,
    Predictor,
    Record,
    RuntimeRecord,
    RuntimeWish,
)
from mesh.core.runtimes import offer
from mesh.core.spec import RuntimeSpec

Key = TypeVar("Key")
Value = TypeVar("Value")

NO_COPIES: Mapping[NodeId, CopyRecord] = {}
NO_MODELS: Set[ModelId] = frozenset()

# Called with the kind and the key of a record that was put or dropped: its name or id; a copy's
# model and node.
Reader = Callable[[type[Record], tuple[str, ...]], None]


@dataclass(slots=True)
class View:
    """Read its mappings freely; change it by `put` and `drop` alone.

    `readers` are told of each change, once it is made; they must not change it themselves. A change
    of what runtimes there are concerns the Predictors that show it: they are told of those, too.
    """

    predictors: dict[PredictorName, Predictor] = field(default_factory=dict)
    models: dict[ModelId, BackingModel] = field(default_factory=dict)
    nodes: dict[NodeId, NodeRecord] = field(default_factory=dict)
    runtimes: dict[RuntimeName, RuntimeRecord] = field(default_factory=dict)
    wishes: dict[RuntimeName, RuntimeWish] = field(default_factory=dict)
    readers: set[Reader] = field(default_factory=set)
    _copies: dict[ModelId, dict[NodeId, CopyRecord]] = field(default_factory=dict)
    _held: dict[NodeId, set[ModelId]] = field(default_factory=dict)
    _loading: dict[NodeId, set[ModelId]] = field(default_factory=dict)
    # Where they are not what the models' own records say: those are very many.
    _other_names: dict[ModelId, tuple[PredictorName, ...]] = field(default_factory=dict)

    def copies(self, model: ModelId) -> Mapping[NodeId, CopyRecord]:
        """The copies of a model, by node."""
        return self._copies.get(model, NO_COPIES)

    def every_copy(self) -> Iterator[CopyRecord]:
        """All copies of all models."""
        return (copy for copies in self._copies.values() for copy in copies.values())

    def held(self, node: NodeId) -> Set[ModelId]:
        """The models of which a node has a copy, in whatever state."""
        return self._held.get(node, NO_MODELS)

    def loading(self, node: NodeId) -> int:
        """How many copies of a node are Loading."""
        return len(self._loading.get(node, NO_MODELS))

    def names(self, model: ModelId) -> frozenset[PredictorName]:
        """The Predictors whose active or target model it is."""
        return frozenset(self._names_of(model))

    def names_on(self, node: NodeId) -> frozenset[PredictorName]:
        """The Predictors of which a node has a copy."""
        return frozenset(name for model in self.held(node) for name in self.names(model))

    def put(self, record: Record) -> frozenset[PredictorName]:
        match record:
            case Predictor():
                self._set_predictor(record.name, record)
                self._tell(Predictor, record.name)
                return frozenset({record.name})
            case BackingModel():
                self._set_model(record.id, record)
                self._tell(BackingModel, record.id)
                return self.names(record.id)
            case CopyRecord():
                self._copies.setdefault(record.model, {})[record.node] = record
                _note(self._held, record, is_in=True)
                _note(self._loading, record, is_in=record.state is CopyState.LOADING)
                self._tell(CopyRecord, record.model, record.node)
                return self.names(record.model)
            case NodeRecord():
                before = self.nodes.get(record.id)
                self.nodes[record.id] = record
                self._tell(NodeRecord, record.id)
                return self._offered(before, record)
            case RuntimeRecord():
                known = self.runtimes.get(record.name)
                self.runtimes[record.name] = record
                self._tell(RuntimeRecord, record.name)
                return self._shown_by(known, record)
            case RuntimeWish():  # pragma: no branch - the last of the union
                self.wishes[record.runtime] = record
                self._tell(RuntimeWish, record.runtime)
                return frozenset()

    def drop_predictor(self, name: PredictorName) -> frozenset[PredictorName]:
        self._set_predictor(name, None)
        self._tell(Predictor, name)
        return frozenset({name})

    def drop_model(self, model: ModelId) -> frozenset[PredictorName]:
        self._set_model(model, None)
        self._tell(BackingModel, model)
        return self.names(model)

    def drop_copy(self, model: ModelId, node: NodeId) -> frozenset[PredictorName]:
        copies = self._copies.get(model, {})
        record = copies.pop(node, None)
        if record is not None:
            _note(self._held, record, is_in=False)
            _note(self._loading, record, is_in=False)
        if not copies:
            self._copies.pop(model, None)
        self._tell(CopyRecord, model, node)
        return self.names(model)

    def drop_node(self, node: NodeId) -> frozenset[PredictorName]:
        before = self.nodes.pop(node, None)
        self._tell(NodeRecord, node)
        return self._offered(before, None)

    def drop_runtime(self, name: RuntimeName) -> frozenset[PredictorName]:
        known = self.runtimes.pop(name, None)
        self._tell(RuntimeRecord, name)
        return self._shown_by(known, None)

    def drop_wish(self, runtime: RuntimeName) -> frozenset[PredictorName]:
        self.wishes.pop(runtime, None)
        self._tell(RuntimeWish, runtime)
        return frozenset()

    def _offered(
        self, before: NodeRecord | None, after: NodeRecord | None
    ) -> frozenset[PredictorName]:
        """The Predictors of a known runtime that show a difference: by the first or last node of
        it in a state.
        """
        moved = {_standing(before)} ^ {_standing(after)}
        if not self.runtimes or not moved:
            return frozenset()
        changed = after or before
        others = (node for node in self.nodes.values() if node.id != (changed and changed.id))
        moved -= {_standing(node) for node in others}
        return self._unserved([standing[1] for standing in moved if standing is not None])

    def _shown_by(
        self, before: RuntimeRecord | None, after: RuntimeRecord | None
    ) -> frozenset[PredictorName]:
        runtimes = [it for it in (before, after) if it is not None]
        return self._unserved([RuntimeSpec(it.name, it.model_types) for it in runtimes])

    def _unserved(self, runtimes: list[RuntimeSpec | None]) -> frozenset[PredictorName]:
        """The Predictors of a model that is loaded nowhere and that one of these supports."""
        offers = {runtime for runtime in runtimes if runtime is not None}
        names = frozenset(
            name
            for model, record in self.models.items()
            if not any(it.state is CopyState.LOADED for it in self.copies(model).values())
            and any(runtime.supports(record.common_source) for runtime in offers)
            for name in self.names(model)
        )
        for name in sorted(names):
            self._tell(Predictor, name)
        return names

    def _tell(self, kind: type[Record], *key: str) -> None:
        for reader in tuple(self.readers):
            reader(kind, key)

    def _set_predictor(self, name: PredictorName, record: Predictor | None) -> None:
        before, after = _models_of(self.predictors.get(name)), _models_of(record)
        others = {
            model: tuple(it for it in self._names_of(model) if it != name)
            for model in before | after
        }
        _set(self.predictors, name, record)
        for model, names in others.items():
            self._set_names(model, (*names, name) if model in after else names)

    def _set_model(self, model: ModelId, record: BackingModel | None) -> None:
        names = self._names_of(model)
        _set(self.models, model, record)
        self._set_names(model, names)

    def _names_of(self, model: ModelId) -> tuple[PredictorName, ...]:
        names = self._other_names.get(model)
        return self._own_name(model) if names is None else names

    def _own_name(self, model: ModelId) -> tuple[PredictorName, ...]:
        """The Predictor that the model names, where that says the same."""
        record = self.models.get(model)
        predictor = record and self.predictors.get(record.predictor)
        return (predictor.name,) if predictor and model in _models_of(predictor) else ()

    def _set_names(self, model: ModelId, names: tuple[PredictorName, ...]) -> None:
        if names == self._own_name(model):
            self._other_names.pop(model, None)
        else:
            self._other_names[model] = names


def _set(table: dict[Key, Value], key: Key, value: Value | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def _models_of(predictor: Predictor | None) -> Set[ModelId]:
    return NO_MODELS if predictor is None else {predictor.active, predictor.target}


def _standing(node: NodeRecord | None) -> tuple[NodeState, RuntimeSpec | None] | None:
    return None if node is None else (node.state, offer(node))


def _note(index: dict[NodeId, set[ModelId]], record: CopyRecord, *, is_in: bool) -> None:
    """Keeps one model of a node in an index, or out of it; a node without any has no place."""
    if is_in:
        index.setdefault(record.node, set()).add(record.model)
    elif (models := index.get(record.node)) is not None:
        models.discard(record.model)
        if not models:
            del index[record.node]
