"""The clock: the only place that asks what time it is. Others take it as an argument."""

import time
from collections.abc import Callable
from dataclasses import dataclass


def wall_s() -> float:
    """Seconds since 1970, UTC."""
    return time.time()  # noqa: TID251 - this is the place


def monotonic_s() -> float:
    """Seconds since some moment, never going back: for durations."""
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Clock:
    """Both clocks, for those who need both; a test has its own."""

    wall_s: Callable[[], float] = wall_s
    monotonic_s: Callable[[], float] = monotonic_s


REAL_CLOCK = Clock()
