"""Bélády's cache: one cache that knows the future and evicts what is used again last.

With models of different sizes this is no proven optimum, and it has no copies, loads or nodes; it
is the bound that no placement is expected to reach.
"""

from array import array
from collections.abc import Callable
from heapq import heappop, heappush

NEVER = (1 << 62) - 1


def misses(trace: array, capacity_bytes: int, size_bytes: Callable[[int], int]) -> int:
    """How many of the uses in the trace (models in the order of time) find nothing in the cache."""
    nexts = _next_uses(trace)
    held: dict[int, int] = {}
    farthest: list[tuple[int, int]] = []
    free_bytes, count = capacity_bytes, 0
    for position, model in enumerate(trace):
        following = nexts[position]
        if model not in held:
            count += 1
            if following == NEVER:
                continue
            free_bytes -= size_bytes(model)
        held[model] = following
        heappush(farthest, (-following, model))
        while free_bytes < 0:
            used, victim = heappop(farthest)
            if held.get(victim) == -used:
                del held[victim]
                free_bytes += size_bytes(victim)
    return count


def _next_uses(trace: array) -> array:
    """For each position, that of the next use of the same model."""
    nexts = array("q", bytes(8 * len(trace)))
    last: dict[int, int] = {}
    for position in range(len(trace) - 1, -1, -1):
        model = trace[position]
        nexts[position] = last.get(model, NEVER)
        last[model] = position
    return nexts
