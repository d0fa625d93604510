"""One run of a process: its start in a group of its own, its log file, its end.

Knows nothing of restarts; that is `mesh.local.supervisor`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Self

from mesh.local import leash
from mesh.local.plan import ProcessSpec

MAX_LOG_BYTES = 16 * 1024 * 1024


class CannotStart(Exception):
    """A process that can never start, because of what its spec says."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"cannot start {name}: {problem}")
        self.name = name
        self.problem = problem


class Run:
    """A running process, leader of its own session and group, tied to our life by the leash."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, spec: ProcessSpec, log: Path) -> Self:
        """Starts it with both outputs appended to `log`; OSError where the machine cannot."""
        _keep_small(log)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-IS",
                leash.__file__,
                str(os.getpid()),
                *(f"{name}={value}" for name, value in spec.env.items()),
                "--",
                program(spec),
                *spec.argv[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=spec.cwd,
                start_new_session=True,
            )
        return cls(process)

    async def ended(self) -> int:
        """Waits for the end and returns the exit code; what it left in its group is killed."""
        code = await self._process.wait()
        self.send(signal.SIGKILL)
        return code

    def send(self, number: signal.Signals) -> None:
        """Signals the whole group; nothing where it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def program(spec: ProcessSpec) -> str:
    """The path of the executable; CannotStart where there is none, or no working directory."""
    if not spec.cwd.is_dir():
        raise CannotStart(spec.name, f"no directory {spec.cwd}")
    found = shutil.which(spec.argv[0])
    if found is None:
        raise CannotStart(spec.name, f"no executable {spec.argv[0]}")
    return found


def _keep_small(log: Path) -> None:
    """Puts a large log of earlier runs aside, in place of the one before it."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > MAX_LOG_BYTES:
            log.replace(log.with_name(log.name + ".1"))
