"""The end of a process that may be no child of ours, as an event."""

import os
import select
import signal
from types import TracebackType
from typing import Self


class Life:
    """Made while the process lives, so that its pid cannot mean another; killed when left."""

    def __init__(self, pid: int) -> None:
        self._handle = os.pidfd_open(pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os.close(self._handle)

    def over(self, limit_s: float) -> None:
        """Returns once it has ended; AssertionError where it lives on for `limit_s`."""
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        assert poll.poll(limit_s * 1000), f"still alive after {limit_s} s"
