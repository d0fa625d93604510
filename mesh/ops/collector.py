"""What lives long is spared by Python's cyclic collector.

Each of its full rounds walks over all objects while every request waits: 0.2 s with 100,000
Predictors. So what is there at the start, and what a round that took long has left, is kept for
good (`gc.freeze`). Objects that nobody refers to go all the same, by their counts of references;
only cycles among what is kept stay, and records have none.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mesh.ops.clock import monotonic_s

LONG_S = 0.02
FULL = 2


@contextmanager
def sparing(long_s: float = LONG_S, clock: Callable[[], float] = monotonic_s) -> Iterator[None]:
    """For as long as the context lasts; begins with a full round. For the whole process."""
    began_s = 0.0

    def after_each(phase: str, info: dict[str, Any]) -> None:
        nonlocal began_s
        if info["generation"] != FULL:
            return
        if phase == "start":
            began_s = clock()
        elif clock() - began_s >= long_s:
            gc.freeze()

    gc.collect()
    gc.freeze()
    gc.callbacks.append(after_each)
    try:
        yield
    finally:
        gc.callbacks.remove(after_each)
        gc.unfreeze()
