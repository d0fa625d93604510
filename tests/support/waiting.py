"""Waiting for a condition outside an event loop."""

import time
from collections.abc import Callable
from typing import Any

DEADLINE_S = 60.0


def until(
    condition: Callable[[], Any], message: Callable[[], str], deadline_s: float = DEADLINE_S
) -> None:
    """Polls until a condition holds; fails with the message after `deadline_s`."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, message()
        time.sleep(0.02)
