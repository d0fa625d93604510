"""Which runtimes may serve a model: those that nodes have, and those of which there is no node yet.

A runtime may exist without a node: somebody (a controller) starts its nodes once they are wanted. A
model that only such a runtime supports waits for it; it is not without a runtime.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from mesh.core.errors import NoSupportingRuntime, RuntimeNotRecognized
from mesh.core.ids import NodeId, RuntimeName
from mesh.core.records import BackingModel, NodeRecord, NodeState, RuntimeRecord, RuntimeState
from mesh.core.spec import ModelSource, RuntimeSpec

Runtimes = Mapping[RuntimeName, RuntimeRecord]
NO_RUNTIMES: Runtimes = MappingProxyType({})
# For so long a runtime may be starting before a model that waits for it says so.
UNHEALTHY_AFTER_S = 10.0


def offer(node: NodeRecord) -> RuntimeSpec | None:
    """The runtime of a node, None where it only routes."""
    return None if node.runtime is None else RuntimeSpec(node.runtime, node.model_types)


def ready_offers(nodes: Iterable[NodeRecord]) -> Iterator[RuntimeSpec]:
    """The runtime of each node that is ready."""
    offers = (offer(node) for node in nodes if node.state is NodeState.READY)
    return (it for it in offers if it is not None)


def supporting(source: ModelSource, runtimes: Runtimes) -> tuple[RuntimeRecord, ...]:
    """Those of the runtimes on which a model of this source may be placed, by name."""
    found = (runtimes[name] for name in sorted(runtimes))
    return tuple(it for it in found if RuntimeSpec(it.name, it.model_types).supports(source))


def missing_runtime(
    model: BackingModel, nodes: Iterable[NodeRecord], runtimes: Runtimes = NO_RUNTIMES
) -> NoSupportingRuntime | RuntimeNotRecognized | None:
    """Why no runtime of these may ever serve the model; None where one may."""
    source = model.common_source
    if any(offered.supports(source) for node in nodes if (offered := offer(node)) is not None):
        return None
    if supporting(source, runtimes):
        return None
    if source.runtime is not None:
        return RuntimeNotRecognized(source.runtime)
    return NoSupportingRuntime(str(source.type))


def awaited(
    source: ModelSource,
    nodes: Mapping[NodeId, NodeRecord],
    runtimes: Runtimes,
    *,
    excluded: frozenset[NodeId] = frozenset(),
    gone: frozenset[NodeState] = frozenset({NodeState.DRAINING}),
) -> tuple[RuntimeRecord, ...]:
    """The runtimes that support a model of which there is no node: none where there is one.

    A node that is `excluded`, or in a state of `gone`, is not there.
    """
    candidates = supporting(source, runtimes)
    if not candidates:
        return ()
    for node in nodes.values():
        if node.id in excluded or node.state in gone:
            continue
        offered = offer(node)
        if offered is not None and offered.supports(source):
            return ()
    return candidates


def pending(
    source: ModelSource, nodes: Mapping[NodeId, NodeRecord], runtimes: Runtimes
) -> tuple[RuntimeRecord, ...]:
    """As `awaited`, where a node counts once it is ready."""
    return awaited(source, nodes, runtimes, gone=frozenset(NodeState) - {NodeState.READY})


def unhealthy_since_s(awaited_runtimes: Iterable[RuntimeRecord], *, now: float) -> float | None:
    """Since when those that are to come have been starting, all of them for too long; else None."""
    starting = [it.since_s for it in awaited_runtimes if it.state is RuntimeState.STARTING]
    if not starting or now - max(starting) < UNHEALTHY_AFTER_S:
        return None
    return max(starting)
