"""Where a model is served, or loaded, or why neither.

Each node is judged by small filters, each with a verdict in words; those that are fit are put in
order by the small sorters of `placement_order`. The rule: serve from a Loaded copy; else wait for
one that is on its way; else load on the fittest node; else refuse with the verdict that says most.
docs/placement.md says it in full.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.core.errors import (
    MeshError,
    ModelLoadFailed,
    NoCapacity,
    Unavailable,
)
from mesh.core.ids import NodeId, RuntimeName
from mesh.core.placement_order import Sorter, Wish, best
from mesh.core.records import BackingModel, CopyRecord, CopyState, NodeRecord, NodeState
from mesh.core.runtimes import Runtimes, awaited, missing_runtime
from mesh.core.spec import ModelSource, ModelType, RuntimeSpec

FAILURE_MEMORY_S = 900.0
MAX_FAILED_NODES = 3
# What a model is thought to take of which nothing is known.
DEFAULT_SIZE_BYTES = 1_000_000
# Of a node's capacity, what a copy that is both `extra` and `fill` leaves free.
EXTRA_KEEPS_FREE = 0.1
# The constraint of model types that have none of their own.
DEFAULT_CONSTRAINT = "_default"
NO_ROOM = "no free room"
LACKS = "lacks the labels "


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
    """A copy is on its way, in or out, on these nodes: decide again when it changes.

    With `runtimes`, instead, a node of one of these is: there is none that is fit yet.
    """

    nodes: tuple[NodeId, ...]
    reason: str
    runtimes: tuple[RuntimeName, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody can serve it. NoCapacity: there is no free room, where only such may be taken, or no
    node is left for an `extra` copy."""

    error: MeshError


Decision = Serve | Load | Wait | Refuse


@dataclass(frozen=True, slots=True)
class Constraint:
    """Labels of nodes: only those that have all the required ones are fit; those that have more of
    the preferred ones come first."""

    required: frozenset[str] = frozenset()
    preferred: frozenset[str] = frozenset()


def _none_coming(_: NodeId) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the model, its copies and the live nodes. `now`: seconds since the epoch.

    `excluded` nodes cannot be reached or were tried: their copies do not count either.
    `size_bytes`: what the model is thought to take, 0 where unknown. `fill`: it may take free room
    only. `extra`: one more copy although some are Loaded. `constraints` are by model type,
    `type:version`, `type` or "_default". `coming` counts the copies Loading on a node, as
    `View.loading` does: nodes announce what they have used a little late. `first_seen_s` says
    since when a node is known at an address, and `lost_failures` when the model failed on nodes
    that are gone, by address: so that a node that restarts is not taken for a new one. `runtimes`
    are those of which nodes may yet come.
    """

    model: BackingModel
    copies: Mapping[NodeId, CopyRecord]
    nodes: Mapping[NodeId, NodeRecord]
    now: float
    excluded: frozenset[NodeId] = frozenset()
    size_bytes: int = 0
    fill: bool = False
    extra: bool = False
    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    coming: Callable[[NodeId], int] = _none_coming
    first_seen_s: Mapping[str, float] = field(default_factory=dict)
    lost_failures: Mapping[str, float] = field(default_factory=dict)
    runtimes: Runtimes = field(default_factory=dict)


def decide(question: Question, *, sorters: Sequence[Sorter] | None = None) -> Decision:
    """The decision for one model; the same for any order of nodes and copies.

    `sorters` other than the rule's own are for comparison.
    """
    loaded = () if question.extra else _nodes_in(question, CopyState.LOADED)
    if loaded:
        return Serve(loaded)
    loading = _nodes_in(question, CopyState.LOADING)
    if loading:
        return Wait(loading, "loading")
    wish = _wish(question)
    verdicts = _verdicts(question, wish)
    fit = [node for node in question.nodes.values() if node.id not in verdicts]
    allowed = _not_failed_enough(question, fit, wish)
    if allowed:
        return Load(best(allowed, wish, sorters), verdicts)
    unloading = () if question.extra else _nodes_in(question, CopyState.UNLOADING)
    if unloading:
        return Wait(unloading, "unloading")
    if runtimes := _coming(question):
        return Wait((), "its runtime has no node", runtimes)
    return Refuse(_refusal(question, verdicts))


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


Filter = Callable[[Iterable[NodeRecord], Question, Wish], Mapping[NodeId, str]]


def _draining(nodes: Iterable[NodeRecord], _: Question, __: Wish) -> Mapping[NodeId, str]:
    draining = NodeState.DRAINING
    return {node.id: "draining" for node in nodes if node.state is draining}


def _failing(nodes: Iterable[NodeRecord], _: Question, __: Wish) -> Mapping[NodeId, str]:
    failing = NodeState.FAILING
    return {node.id: "its runtime does not answer" for node in nodes if node.state is failing}


def _lacking_runtime(
    nodes: Iterable[NodeRecord], question: Question, _: Wish
) -> Mapping[NodeId, str]:
    offers = {(node.runtime, node.model_types) for node in nodes}
    source = question.model.common_source
    verdicts = {offer: _offer_verdict(*offer, source) for offer in offers}
    if not any(verdicts.values()):
        return {}
    judged = ((node.id, verdicts[node.runtime, node.model_types]) for node in nodes)
    return {node: verdict for node, verdict in judged if verdict}


def _offer_verdict(
    runtime: RuntimeName | None, model_types: frozenset[ModelType], source: ModelSource
) -> str:
    if runtime is None:
        return "has no runtime"
    if RuntimeSpec(runtime, model_types).supports(source):
        return ""
    return f"its runtime {runtime} does not serve {source.runtime or source.type}"


def _lacking_labels(
    nodes: Iterable[NodeRecord], question: Question, _: Wish
) -> Mapping[NodeId, str]:
    required = _constraint(question).required
    if not required:
        return {}
    missing = ((node.id, required - node.labels) for node in nodes)
    return {node: f"{LACKS}{', '.join(sorted(labels))}" for node, labels in missing if labels}


def _having_a_copy(_: Iterable[NodeRecord], question: Question, __: Wish) -> Mapping[NodeId, str]:
    verdicts = {node: _copy_verdict(copy, question.now) for node, copy in question.copies.items()}
    return {node: verdict for node, verdict in verdicts.items() if verdict}


def _copy_verdict(copy: CopyRecord, now: float) -> str:
    if copy.state is not CopyState.FAILED:
        return f"has a copy that is {copy.state}"
    return (copy.reason or "failed") if is_remembered(copy, now=now) else ""


def _failed_before_restart(
    nodes: Iterable[NodeRecord], question: Question, _: Wish
) -> Mapping[NodeId, str]:
    failed = _lost_failures(question)
    verdict = "failed before the node restarted"
    return {node.id: verdict for node in nodes if node.address in failed} if failed else {}


def _excluded(_: Iterable[NodeRecord], question: Question, __: Wish) -> Mapping[NodeId, str]:
    return dict.fromkeys(question.excluded, "was tried already")


def _full(nodes: Iterable[NodeRecord], question: Question, wish: Wish) -> Mapping[NodeId, str]:
    """An extra copy leaves some room for models that have none yet."""
    if not question.fill:
        return {}
    kept = EXTRA_KEEPS_FREE if question.extra else 0.0
    return {
        node.id: NO_ROOM
        for node in nodes
        if wish.free_bytes(node) < wish.size_bytes + kept * node.capacity_bytes
    }


# A node gets the verdict of the first of these that has one for it.
FILTERS: tuple[Filter, ...] = (
    _draining,
    _failing,
    _lacking_runtime,
    _having_a_copy,
    _failed_before_restart,
    _excluded,
    _lacking_labels,
    _full,
)


def _verdicts(question: Question, wish: Wish) -> dict[NodeId, str]:
    """Why nodes are not fit; a node that is fit is not in it."""
    verdicts: dict[NodeId, str] = {}
    for rule in reversed(FILTERS):
        verdicts.update(rule(question.nodes.values(), question, wish))
    return {node: verdict for node, verdict in verdicts.items() if node in question.nodes}


def _wish(question: Question) -> Wish:
    copies = question.copies.values()
    known_bytes = max([question.size_bytes, *(copy.size_bytes for copy in copies)])
    zones: dict[str, int] = {}
    for node in _nodes_in(question, CopyState.LOADED) + _nodes_in(question, CopyState.LOADING):
        record = question.nodes.get(node)
        if record is not None:
            zones[record.zone] = zones.get(record.zone, 0) + 1
    return Wish(
        question.model.id,
        size_bytes=known_bytes or DEFAULT_SIZE_BYTES,
        known_bytes=known_bytes,
        zones=zones,
        preferred=_constraint(question).preferred,
        coming=question.coming,
        now=question.now,
    )


def _constraint(question: Question) -> Constraint:
    wanted = question.model.common_source.type
    for key in (str(wanted), wanted.name, DEFAULT_CONSTRAINT):
        if (constraint := question.constraints.get(key)) is not None:
            return constraint
    return Constraint()


def _nodes_in(question: Question, state: CopyState) -> tuple[NodeId, ...]:
    nodes = (copy.node for copy in question.copies.values() if copy.state is state)
    return tuple(sorted(node for node in nodes if node not in question.excluded))


def _not_failed_enough(
    question: Question, fit: list[NodeRecord], wish: Wish
) -> Sequence[NodeRecord]:
    """Of the fit nodes those where it may be tried still.

    Once it has failed on three, that is none but those that came later, and those that are large
    enough where it failed because the others were too small.
    """
    failures = remembered_failures(question.copies.values(), now=question.now)
    lost = _lost_failures(question)
    if len(failures) + len(lost) < MAX_FAILED_NODES:
        return fit
    last_s = max([*lost.values(), *(copy.since_s for copy in failures)])
    others = sum(not _is_for_size(copy, question) for copy in failures) + len(lost)
    return [
        node
        for node in fit
        if _joined_s(node, question) > last_s
        or (others < MAX_FAILED_NODES and node.capacity_bytes >= wish.known_bytes)
    ]


def _is_for_size(copy: CopyRecord, question: Question) -> bool:
    node = question.nodes.get(copy.node)
    return node is not None and copy.size_bytes > node.capacity_bytes


def _joined_s(node: NodeRecord, question: Question) -> float:
    return min(node.joined_s, question.first_seen_s.get(node.address, node.joined_s))


def _lost_failures(question: Question) -> dict[str, float]:
    lost = question.lost_failures.items()
    return {at: since_s for at, since_s in lost if not is_failure_expired(since_s, question.now)}


def _coming(question: Question) -> tuple[RuntimeName, ...]:
    """The runtimes of which a node is to come before the model can be loaded."""
    if question.extra or remembered_failures(question.copies.values(), now=question.now):
        return ()
    source, nodes = question.model.common_source, question.nodes
    found = awaited(source, nodes, question.runtimes, excluded=question.excluded)
    return tuple(runtime.name for runtime in found)


def _refusal(question: Question, verdicts: Mapping[NodeId, str]) -> MeshError:
    source, model = question.model.common_source, question.model.id
    if NO_ROOM in verdicts.values():
        return NoCapacity("no node has so much free", model=model)
    failures = remembered_failures(question.copies.values(), now=question.now)
    if failures:
        return ModelLoadFailed(failures[0].reason, model=model, node=failures[0].node)
    if missing := missing_runtime(question.model, question.nodes.values(), question.runtimes):
        return missing
    if question.extra:
        return NoCapacity("no node is left for another copy", model=model)
    if lacking := sorted({verdict for verdict in verdicts.values() if verdict.startswith(LACKS)}):
        return Unavailable(f"no node is fit for {source.type}: {lacking[0]}", model=model)
    return Unavailable(f"no node can serve {source.type} just now", model=model)
