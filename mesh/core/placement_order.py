"""In what order the nodes are taken that may hold a model: small sorters, one after the other.

Each sorter ranks those that are left, by a figure that is smaller where the node is better (or by
none, where it has nothing to say), and only the best go on to the next. Those that are left at the
end are equal, and rendezvous order shares the models between them. What many nodes decide at the
same time from figures that are a little behind would all go to one node, the best; therefore
figures are coarse, so that several nodes are the best, and what is on its way counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, log

from mesh.core.ids import ModelId, NodeId
from mesh.core.records import NodeRecord, NodeState
from mesh.core.rendezvous import first

# From so many loads under way on, others are preferred, even those that must evict.
BACKLOG = 2
SPACE_STEPS = 4
BUSY_STEP = 1.5


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be placed. `known_bytes` is 0 where `size_bytes` is a guess.

    `zones`: how many copies each zone has. `coming` counts the copies that a node is loading.
    """

    model: ModelId
    size_bytes: int
    known_bytes: int
    zones: Mapping[str, int]
    preferred: frozenset[str]
    coming: Callable[[NodeId], int]
    now: float

    def free_bytes(self, node: NodeRecord) -> int:
        """What is free after the loads that the node's own figures do not show yet."""
        unseen = self.coming(node.id) - node.loading
        free_bytes = node.capacity_bytes - node.used_bytes
        return free_bytes - unseen * self.size_bytes if unseen > 0 else free_bytes


Sorter = Callable[[Sequence[NodeRecord], Wish], Sequence[float]]


def best(
    nodes: Sequence[NodeRecord], wish: Wish, sorters: Sequence[Sorter] | None = None
) -> NodeId:
    """The first of these nodes, at least one, by `SORTERS` or by others for comparison."""
    for sorter in SORTERS if sorters is None else sorters:
        if len(nodes) == 1:
            break
        ranks = sorter(nodes, wish)
        if not ranks:
            continue
        least = min(ranks)
        if ranks.count(least) < len(ranks):
            nodes = [node for node, rank in zip(nodes, ranks, strict=True) if rank == least]
    return first(wish.model, (node.id for node in nodes))


def by_possibility(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """A node that can never hold it comes last, and says so if it has to try."""
    if not wish.known_bytes:
        return ()
    return [0 < node.capacity_bytes < wish.known_bytes for node in nodes]


def by_readiness(nodes: Sequence[NodeRecord], _: Wish) -> Sequence[float]:
    ready = NodeState.READY
    return [node.state is not ready for node in nodes]


def by_zone(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """Zones with fewer copies of this model first."""
    zones = wish.zones
    return [zones.get(node.zone, 0) for node in nodes] if zones else ()


def by_preferred_labels(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    preferred = wish.preferred
    return [len(preferred - node.labels) for node in nodes] if preferred else ()


def by_backlog(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """Keeps an empty node among full ones from being sent everything at once.

    By what the node says and what its copies say; either may be behind. Each doubling counts.
    """
    return [(loads // BACKLOG).bit_length() for loads in _loads(nodes, wish)]


def by_room(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """Where it fits without unloading others first."""
    size_bytes = wish.size_bytes
    return [free_bytes < size_bytes for free_bytes in _free_bytes(nodes, wish)]


def by_age(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """Where something must be unloaded, the cache whose oldest use is longest ago comes first.

    Of two that differ by less than half a doubling neither is older.
    """
    if wish.free_bytes(nodes[0]) >= wish.size_bytes:  # then it fits on all that are left
        return ()
    now = wish.now
    # The square has two bits for each doubling.
    return [-int((now - node.oldest_use_s) ** 2).bit_length() for node in nodes]


def by_loads(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """A node that loads nothing first: what `by_backlog` does not tell apart."""
    return [loads > 0 for loads in _loads(nodes, wish)]


def by_request_rate(nodes: Sequence[NodeRecord], _: Wish) -> Sequence[float]:
    """Up to one and a half times the mean of those that are left, all are equal."""
    mean = fsum([node.rps for node in nodes]) / len(nodes)
    if mean <= 0:
        return ()
    equal = BUSY_STEP * mean
    return [0 if node.rps < equal else int(log(node.rps / mean, BUSY_STEP)) for node in nodes]


def by_free_space(nodes: Sequence[NodeRecord], wish: Wish) -> Sequence[float]:
    """In quarters of the node."""
    return [
        -(free_bytes * SPACE_STEPS // (node.capacity_bytes or 1))
        for node, free_bytes in zip(nodes, _free_bytes(nodes, wish), strict=True)
    ]


SORTERS: tuple[Sorter, ...] = (
    by_possibility,
    by_readiness,
    by_zone,
    by_preferred_labels,
    by_backlog,
    by_room,
    by_age,
    by_loads,
    by_request_rate,
    by_free_space,
)


def _free_bytes(nodes: Sequence[NodeRecord], wish: Wish) -> list[int]:
    """As `wish.free_bytes`, which is asked only where it makes a difference."""
    coming = wish.coming
    return [
        node.capacity_bytes - node.used_bytes
        if coming(node.id) <= node.loading
        else wish.free_bytes(node)
        for node in nodes
    ]


def _loads(nodes: Sequence[NodeRecord], wish: Wish) -> list[int]:
    coming = wish.coming
    loads = [(node.loading, coming(node.id)) for node in nodes]
    return [said if said > seen else seen for said, seen in loads]
