"""Takes what the store says into the view. Nothing here awaits or decides."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.records import BackingModel, Record
from mesh.core.view import View
from mesh.registry.port import Change
from mesh.wire import records

log = logging.getLogger(__name__)

OF_A_NODE = (records.COPIES, records.NODES)


@dataclass(frozen=True, slots=True)
class Unread:
    """A value that is no record, or one of a kind that this version does not know."""


UNREAD = Unread()
News: TypeAlias = Change[Record | Unread]


@dataclass(frozen=True, slots=True)
class TakenIn:
    """The Predictors that changes concern, and the models that they brought and removed."""

    touched: frozenset[PredictorName]
    added: tuple[ModelId, ...]
    dropped: tuple[ModelId, ...]


class Reading:
    """Reads what the view takes. A value that cannot be read is logged and left out."""

    def __init__(self) -> None:
        self.shared = records.Pool()

    def __call__(self, key: str, value: bytes) -> Record | Unread:
        try:
            record = records.decode(key, value, self.shared)
        except records.Unreadable as error:
            fields = {"key": key, "problem": error.problem}
            log.error("record ignored", extra=fields)  # noqa: TRY400
            return UNREAD
        return UNREAD if record is None else record


def take_in(
    view: View,
    changes: tuple[News, ...],
    *,
    own: NodeId,
    going: Callable[[NodeId], None],
    changing: Callable[[PredictorName], None],
) -> TakenIn:
    """Applies the changes, but for what this node writes itself: of that the view has the truth.

    `going` is called with each node that leaves, while it and its copies are still in the view;
    `changing` with each Predictor that changes, while the view still has it as it was.
    """
    _announce_going(changes, own, going)
    touched: set[PredictorName] = set()
    added: list[ModelId] = []
    dropped: list[ModelId] = []
    for change in changes:
        prefix, names = records.key_parts(change.key)
        if prefix in OF_A_NODE and names[-1] == own:
            continue
        if prefix == records.PREDICTORS:
            changing(PredictorName(names[0]))
        match change.value:
            case Unread():
                continue
            case None:
                touched |= _drop(view, prefix, names)
                if prefix == records.MODELS:
                    dropped.append(ModelId(names[0]))
            case record:
                if _is_new(view, record):
                    added.append(ModelId(names[0]))
                touched |= view.put(record)
    return TakenIn(frozenset(touched), tuple(added), tuple(dropped))


def _announce_going(
    changes: tuple[News, ...], own: NodeId, going: Callable[[NodeId], None]
) -> None:
    for change in changes:
        if change.value is None and change.key.startswith(records.NODES):
            _, (name, *_) = records.key_parts(change.key)
            if name != own:
                going(NodeId(name))


def _is_new(view: View, record: Record) -> bool:
    """Whether it is a model that the view does not have yet."""
    return isinstance(record, BackingModel) and record.id not in view.models


def _drop(view: View, prefix: str, names: tuple[str, ...]) -> frozenset[PredictorName]:
    match prefix:
        case records.PREDICTORS:
            return view.drop_predictor(PredictorName(names[0]))
        case records.MODELS:
            return view.drop_model(ModelId(names[0]))
        case records.COPIES if len(names) > 1:
            return view.drop_copy(ModelId(names[0]), NodeId(names[1]))
        case records.NODES:
            return _drop_node(view, NodeId(names[0]))
        case records.RUNTIMES:
            return view.drop_runtime(RuntimeName(names[0]))
        case records.WANTED:
            return view.drop_wish(RuntimeName(names[0]))
    return frozenset()


def _drop_node(view: View, node: NodeId) -> frozenset[PredictorName]:
    """With its copies: some are known from peers alone, and no deletion of those ever comes."""
    touched = [view.drop_copy(model, node) for model in tuple(view.held(node))]
    return view.drop_node(node).union(*touched)
