"""An event loop whose clock jumps to the next timer: hours pass at once, and nothing is slept.

Where nothing is left that could happen, the test fails at once instead of hanging. Not for sockets
or threads.
"""

import asyncio
import selectors
from typing import Any

from mesh.ops.clock import Clock

EPOCH_S = 1_700_000_000.0


class _Jump(selectors.SelectSelector):
    """Instead of waiting for a timer, sets the loop's clock to it."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise AssertionError(
                    "nothing is left that could happen: what is awaited never comes"
                )
            self.now_s += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s


def loop_time_s() -> float:
    return asyncio.get_running_loop().time()


# Follows the loop on which it is asked.
CLOCK = Clock(wall_s=lambda: EPOCH_S + loop_time_s(), monotonic_s=loop_time_s)
