"""Where a model is served, or loaded, or why neither.

Each node is judged by small filters, each with a verdict in words; those that are fit are put in
order by small sorters. The rule: serve from a Loaded copy; else wait for one that is on its way;
else load on the fittest node; else refuse with the verdict that says most.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mesh.core.errors import (
    MeshError,
    ModelLoadFailed,
    NoSupportingRuntime,
    RuntimeNotRecognized,
    Unavailable,
)
from mesh.core.ids import NodeId
from mesh.core.records import BackingModel, CopyRecord, CopyState, NodeRecord, NodeState
from mesh.core.spec import RuntimeSpec

FAILURE_MEMORY_S = 900.0
MAX_FAILED_NODES = 3


@dataclass(frozen=True, slots=True)
class Serve:
    """These nodes have a Loaded copy."""

    nodes: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Load it here; `reasons` says why the other nodes are not fit."""

    node: NodeId
    reasons: Mapping[NodeId, str]


@dataclass(frozen=True, slots=True)
class Wait:
    """A copy is on its way, in or out, on these nodes: decide again when it changes."""

    nodes: tuple[NodeId, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody can serve it."""

    error: MeshError


Decision = Serve | Load | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the model, its copies and the live nodes. `now`: seconds since the epoch."""

    model: BackingModel
    copies: Mapping[NodeId, CopyRecord]
    nodes: Mapping[NodeId, NodeRecord]
    now: float
    excluded: frozenset[NodeId] = frozenset()


def decide(question: Question) -> Decision:
    """The decision for one model; the same for any order of nodes and copies."""
    loaded = _nodes_in(question, CopyState.LOADED)
    if loaded:
        return Serve(loaded)
    loading = _nodes_in(question, CopyState.LOADING)
    if loading:
        return Wait(loading, "loading")
    verdicts = {node.id: _verdict(node, question) for node in question.nodes.values()}
    fit = [question.nodes[node] for node, verdict in verdicts.items() if not verdict]
    if fit and not _has_failed_enough(question):
        reasons = {node: verdict for node, verdict in verdicts.items() if verdict}
        return Load(min(fit, key=lambda node: _order(node)).id, reasons)
    unloading = _nodes_in(question, CopyState.UNLOADING)
    if unloading:
        return Wait(unloading, "unloading")
    return Refuse(_refusal(question))


def remembered_failures(copies: Iterable[CopyRecord], *, now: float) -> list[CopyRecord]:
    """The failed copies whose failure still counts, the latest first."""
    failed = [copy for copy in copies if is_remembered(copy, now=now)]
    return sorted(failed, key=lambda copy: (-copy.since_s, copy.node))


def is_remembered(copy: CopyRecord, *, now: float) -> bool:
    """Whether it Failed, not so long ago that it may be tried again."""
    return copy.state is CopyState.FAILED and not is_failure_expired(copy.since_s, now)


def is_failure_expired(since_s: float, now: float) -> bool:
    """Whether a failure is so long ago that the model may be tried again."""
    return now - since_s >= FAILURE_MEMORY_S


def _is_draining(node: NodeRecord, _: Question) -> str:
    return "draining" if node.state is NodeState.DRAINING else ""


def _is_failing(node: NodeRecord, _: Question) -> str:
    return "its runtime does not answer" if node.state is NodeState.FAILING else ""


def _lacks_runtime(node: NodeRecord, question: Question) -> str:
    if node.runtime is None:
        return "has no runtime"
    source = question.model.source
    if RuntimeSpec(node.runtime, node.model_types).supports(source):
        return ""
    return f"its runtime {node.runtime} does not serve {source.runtime or source.type}"


def _has_copy(node: NodeRecord, question: Question) -> str:
    copy = question.copies.get(node.id)
    if copy is None:
        return ""
    if copy.state is CopyState.FAILED:
        return copy.reason if is_remembered(copy, now=question.now) else ""
    return f"has a copy that is {copy.state}"


def _is_excluded(node: NodeRecord, question: Question) -> str:
    return "was tried already" if node.id in question.excluded else ""


FILTERS: tuple[Callable[[NodeRecord, Question], str], ...] = (
    _is_draining,
    _is_failing,
    _lacks_runtime,
    _has_copy,
    _is_excluded,
)


def _verdict(node: NodeRecord, question: Question) -> str:
    """Why the node is not fit; empty where it is."""
    return next((verdict for rule in FILTERS if (verdict := rule(node, question))), "")


def _order(node: NodeRecord) -> tuple[bool, int, NodeId]:
    """READY before STARTING, then the most free space, then the id so that all nodes agree."""
    free_bytes = node.capacity_bytes - node.used_bytes
    return node.state is not NodeState.READY, -free_bytes, node.id


def _nodes_in(question: Question, state: CopyState) -> tuple[NodeId, ...]:
    nodes = (copy.node for copy in question.copies.values() if copy.state is state)
    return tuple(sorted(node for node in nodes if node not in question.excluded))


def _has_failed_enough(question: Question) -> bool:
    failures = remembered_failures(question.copies.values(), now=question.now)
    return len(failures) >= MAX_FAILED_NODES


def _refusal(question: Question) -> MeshError:
    source, model = question.model.source, question.model.id
    failures = remembered_failures(question.copies.values(), now=question.now)
    if failures:
        return ModelLoadFailed(failures[0].reason, model=model, node=failures[0].node)
    if missing := missing_runtime(question.model, question.nodes.values()):
        return missing
    return Unavailable(f"no node can serve {source.type} just now", model=model)


def missing_runtime(
    model: BackingModel, nodes: Iterable[NodeRecord]
) -> NoSupportingRuntime | RuntimeNotRecognized | None:
    """Why no runtime of these nodes may ever serve the model; None where one may."""
    source = model.source
    offers = [
        RuntimeSpec(node.runtime, node.model_types) for node in nodes if node.runtime is not None
    ]
    if any(offer.supports(source) for offer in offers):
        return None
    if source.runtime is not None:
        return RuntimeNotRecognized(source.runtime)
    return NoSupportingRuntime(str(source.type))
