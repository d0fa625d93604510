"""What was used between two answers of Usage: rates, percentiles, memory; by node and by model."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, zip_longest

from mesh.ops.metrics import COPY_MS
from mesh.wire.pb import wml_management_pb2 as pb

Counts = list[int]


@dataclass(slots=True)
class Used:
    """What a node or a model was used for: `calls` by the bounds of `COPY_MS`."""

    name: str
    rps: float = 0.0
    in_flight: int = 0
    copies: int = 0
    used_bytes: int = 0
    capacity_bytes: int = 0
    calls: Counts = field(default_factory=list)

    @property
    def p99_ms(self) -> float | None:
        """At least what 99 of 100 calls took, by at most a fifth; None where there were none."""
        total = sum(self.calls)
        if not total:
            return None
        place = bisect_left(list(accumulate(self.calls)), total - total // 100)
        return COPY_MS[place] if place < len(COPY_MS) else float("inf")

    def add(self, rps: float, copy: pb.CopyUsage, calls: Counts) -> None:
        """One copy more."""
        self.rps += rps
        self.in_flight += copy.in_flight
        self.copies += 1
        self.calls = _each(self.calls, calls, 1)


@dataclass(frozen=True, slots=True)
class Usage:
    """Nodes in the order of their names, and models: those that are used most come first."""

    nodes: Sequence[Used]
    models: Sequence[Used]


def between(before: pb.UsageResponse, after: pb.UsageResponse) -> Usage:
    """What two answers, one after the other, say of the time between them.

    Of a node that was not in the first one only the memory is known.
    """
    known = {usage.node: usage for usage in before.nodes}
    nodes: list[Used] = []
    models: dict[str, Used] = {}
    for usage in after.nodes:
        node = Used(usage.node, used_bytes=usage.used_bytes, capacity_bytes=usage.capacity_bytes)
        nodes.append(node)
        first = known.get(usage.node, usage)
        past = {copy.model: copy for copy in first.copies}
        over_s = usage.monotonic_s - first.monotonic_s
        for copy in usage.copies:
            requests, calls = _since(past.get(copy.model), copy)
            model = models.setdefault(copy.model, Used(copy.model))
            model.used_bytes += copy.size_bytes
            for used in (node, model):
                used.add(requests / over_s if over_s > 0 else 0.0, copy, calls)
    most = sorted(models.values(), key=lambda it: (-it.rps, -it.used_bytes, it.name))
    return Usage(nodes, most)


def _since(before: pb.CopyUsage | None, after: pb.CopyUsage) -> tuple[int, Counts]:
    """Requests and calls; one that was loaded anew meanwhile has counted from nothing."""
    if before is None or before.requests > after.requests:
        return after.requests, list(after.calls)
    calls = _each(after.calls, before.calls, -1)
    return after.requests - before.requests, [max(0, count) for count in calls]


def _each(one: Iterable[int], other: Iterable[int], sign: int) -> Counts:
    return [left + sign * right for left, right in zip_longest(one, other, fillvalue=0)]
