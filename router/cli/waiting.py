"""What a request waits for, on standard error: a line that changes on a terminal, else plain lines.

Plain lines go into logs: there is one when the stage changes, and then one now and then.
"""

import re
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from mesh.ops.clock import monotonic_s

PLAIN_EVERY_S = 5.0
AMOUNT = re.compile(r" [\d./]+ \w+$")
CLEAR_LINE = "\r\x1b[K"


class WaitingLine:
    """`clock` gives monotonic seconds. Leaving the context clears the line of a terminal."""

    def __init__(
        self, name: str, stream: TextIO, *, clock: Callable[[], float] = monotonic_s
    ) -> None:
        self._name = name
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._shown = ""
        self._told: tuple[str, float] = ("", 0.0)

    def __enter__(self) -> "WaitingLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.show("")

    def show(self, progress: str) -> None:
        """Shows what is waited for now; empty for nothing."""
        text = "".join(character for character in progress if character.isprintable())
        if self._is_terminal:
            self._redraw(text)
        elif text:
            self._tell(text)

    def _redraw(self, text: str) -> None:
        if text == self._shown:
            return
        self._shown = text
        self._stream.write(CLEAR_LINE + (f"{self._name}: {text}" if text else ""))
        self._stream.flush()

    def _tell(self, text: str) -> None:
        stage, now_s = AMOUNT.sub("", text), self._clock()
        told, told_s = self._told
        if stage == told and now_s - told_s < PLAIN_EVERY_S:
            return
        self._told = (stage, now_s)
        self._stream.write(f"{self._name}: {text}\n")
        self._stream.flush()
