"""The clock: the only place that asks what time it is. Others take it as an argument."""

import time


def wall_s() -> float:
    """Seconds since 1970, UTC."""
    return time.time()  # noqa: TID251 - this is the place


def monotonic_s() -> float:
    """Seconds since some moment, never going back: for durations."""
    return time.monotonic()
