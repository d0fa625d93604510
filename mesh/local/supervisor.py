"""Keeps processes running: a process that ends is started again, later each time it fails soon.

What to run is `mesh.local.plan`; whether what runs is of any use is asked by those who call it.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesh.local.plan import ProcessSpec
from mesh.local.process import CannotStart, Run, program
from mesh.ops.clock import monotonic_s
from mesh.ops.tasks import Tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before a process is started again."""

    first_s: float = 0.1
    most_s: float = 5.0
    # A run of this length counts as a success: the next failure is a first one.
    reset_after_s: float = 10.0

    def next_s(self, previous_s: float, lived_s: float) -> float:
        """The wait after a run of `lived_s`, where the one before it was `previous_s` (0: none)."""
        if previous_s == 0.0 or lived_s >= self.reset_after_s:
            return self.first_s
        return min(previous_s * 2, self.most_s)


@dataclass(frozen=True, slots=True)
class Started:
    """A process runs, under this pid until it is `Ended`."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A process ended; `code` is negative where a signal ended it, as -9."""

    name: str
    code: int


Change = Started | Ended


def _ignore(_change: Change) -> None:
    pass


class Supervisor:
    """Runs processes from `start` to `stop`, each with a log file of its name in `log_dir`.

    They inherit our environment; a spec's own comes on top. `on_change` is called on the loop.
    Use it on a loop whose thread lives as long as the processes should (see `leash`).
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        log_dir: Path,
        *,
        backoff: Backoff | None = None,
        grace_s: float = 10.0,
        on_change: Callable[[Change], None] = _ignore,
    ) -> None:
        self._specs = specs
        self._log_dir = log_dir
        self._backoff = backoff or Backoff()
        self._grace_s = grace_s
        self._on_change = on_change
        self._stopping = asyncio.Event()
        self._running: dict[str, Run] = {}
        self._tasks = Tasks()
        self._keepers: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts everything, or nothing: raises CannotStart where one of them can never run."""
        for spec in self._specs:
            program(spec)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        for spec in self._specs:
            keeper = self._tasks.spawn(self._keep(spec), f"keep {spec.name}")
            self._keepers.add(keeper)

    async def stop(self) -> None:
        """Ends all of them: SIGTERM to their groups, after the grace SIGKILL. Returns when gone.

        Where it is cancelled, it kills at once.
        """
        self._stopping.set()
        self._send(signal.SIGTERM)
        try:
            if self._keepers:
                await asyncio.wait(self._keepers, timeout=self._grace_s)
        finally:
            self._send(signal.SIGKILL)
        if self._keepers:
            await asyncio.wait(self._keepers)

    async def _keep(self, spec: ProcessSpec) -> None:
        delay_s = 0.0
        while not self._stopping.is_set():
            started_s = monotonic_s()
            await self._run(spec)
            delay_s = self._backoff.next_s(delay_s, monotonic_s() - started_s)
            await self._pause(spec, delay_s)

    async def _run(self, spec: ProcessSpec) -> None:
        """One life of a process; one that cannot start now counts as a short one."""
        try:
            run = await Run.start(spec, self._log_dir / f"{spec.name}.log")
        except (OSError, CannotStart) as error:
            log.error(  # noqa: TRY400 - expected, and the words say all
                "process not started", extra={"program": spec.name, "problem": str(error)}
            )
            return
        self._running[spec.name] = run
        log.info("process started", extra={"program": spec.name, "pid": run.pid})
        self._on_change(Started(spec.name, run.pid))
        if self._stopping.is_set():
            # `stop` sent its signal while this one was being started.
            run.send(signal.SIGTERM)
        code = await run.ended()
        del self._running[spec.name]
        level = logging.INFO if self._stopping.is_set() else logging.WARNING
        log.log(level, "process ended", extra={"program": spec.name, "pid": run.pid, "code": code})
        self._on_change(Ended(spec.name, code))

    async def _pause(self, spec: ProcessSpec, delay_s: float) -> None:
        if self._stopping.is_set():
            return
        log.info("process waits", extra={"program": spec.name, "delay_s": delay_s})
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _send(self, number: signal.Signals) -> None:
        for run in self._running.values():
            run.send(number)
