"""Real processes under supervision: restarts, ends, and what is left behind (nothing)."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.local import leash
from mesh.local.plan import ProcessSpec
from mesh.local.process import MAX_LOG_BYTES, CannotStart
from mesh.local.supervisor import Backoff, Change, Ended, Started, Supervisor
from tests.support.lives import Life
from tests.support.world import eventually

LIMIT_S = 20.0
FAST = Backoff(first_s=0.01, most_s=0.02)
FOREVER = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()"
)
# Starts a child of its own in the same group, says its pid, and does as it is told on SIGTERM.
PARENT = (
    "import signal, subprocess, sys\n"
    "wait = 'import signal; signal.pause()'\n"
    "child = subprocess.Popen([sys.executable, '-c', wait])\n"
    "print(child.pid, flush=True); signal.pause()"
)


class Watched:
    """A supervisor's changes as a queue, and its processes by name."""

    def __init__(self, folder: Path, **programs: str) -> None:
        self.folder = folder
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.specs = [spec(folder, name, code) for name, code in programs.items()]

    def supervisor(self, *, backoff: Backoff = FAST, grace_s: float = LIMIT_S) -> Supervisor:
        return Supervisor(
            self.specs,
            self.folder / "logs",
            backoff=backoff,
            grace_s=grace_s,
            on_change=self.changes.put_nowait,
        )

    async def started(self) -> Started:
        change = await self.next()
        assert isinstance(change, Started)
        return change

    async def next(self) -> Change:
        async with asyncio.timeout(LIMIT_S):
            return await self.changes.get()

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    async def said(self, name: str) -> str:
        """The first line of a process's log, once it is there."""
        await eventually(lambda: self.log(name).endswith("\n"))
        return self.log(name)


def spec(folder: Path, name: str, code: str, **env: str) -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-c", code), env, folder)


async def test_process_runs_with_its_environment_folder_and_arguments(tmp_path):
    code = "import os, sys; print(os.environ['A'], 'PATH' in os.environ, os.getcwd(), sys.argv[1:])"
    watched = Watched(tmp_path)
    watched.specs = [
        ProcessSpec("p", (sys.executable, "-c", code, "--", "-x"), {"A": "a=b c"}, tmp_path)
    ]
    supervisor = watched.supervisor(backoff=Backoff(first_s=60))
    await supervisor.start()
    await watched.started()
    assert await watched.next() == Ended("p", 0)
    await supervisor.stop()
    assert watched.log("p") == f"a=b c True {tmp_path} ['--', '-x']\n"


async def test_both_outputs_go_to_the_log_and_runs_are_appended(tmp_path):
    watched = Watched(tmp_path, p="import sys; print('out', flush=True); sys.exit('err')")
    supervisor = watched.supervisor()
    await supervisor.start()
    for _ in range(2):
        await watched.started()
        assert await watched.next() == Ended("p", 1)
    await supervisor.stop()
    assert watched.log("p").startswith("out\nerr\nout\nerr\n")


async def test_large_log_of_earlier_runs_is_put_aside(tmp_path):
    log = tmp_path / "logs" / "p.log"
    log.parent.mkdir()
    with log.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    watched = Watched(tmp_path, p="print('new')")
    supervisor = watched.supervisor(backoff=Backoff(first_s=60))
    await supervisor.start()
    await watched.started()
    await watched.next()
    await supervisor.stop()
    assert watched.log("p") == "new\n"
    assert (tmp_path / "logs" / "p.log.1").stat().st_size == MAX_LOG_BYTES + 1


async def test_killed_process_is_started_again_and_the_others_are_left_alone(tmp_path):
    watched = Watched(tmp_path, a=FOREVER, b=FOREVER)
    supervisor = watched.supervisor()
    await supervisor.start()
    first = {change.name: change for change in (await watched.started(), await watched.started())}
    os.kill(first["a"].pid, signal.SIGKILL)
    assert await watched.next() == Ended("a", -signal.SIGKILL)
    again = await watched.started()
    assert again.name == "a"
    assert again.pid != first["a"].pid
    os.kill(first["b"].pid, 0)
    await supervisor.stop()


async def test_stop_during_a_long_back_off_is_quick(tmp_path):
    watched = Watched(tmp_path, p="raise SystemExit(3)")
    supervisor = watched.supervisor(backoff=Backoff(first_s=3600))
    await supervisor.start()
    await watched.started()
    assert await watched.next() == Ended("p", 3)
    async with asyncio.timeout(LIMIT_S):
        await supervisor.stop()
    assert watched.changes.empty()


async def test_stop_asks_first(tmp_path):
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('up', flush=True); signal.pause()"
    )
    watched = Watched(tmp_path, p=code)
    supervisor = watched.supervisor()
    await supervisor.start()
    await watched.started()
    await watched.said("p")
    await supervisor.stop()
    assert await watched.next() == Ended("p", 7)


async def test_stop_kills_after_the_grace(tmp_path):
    watched = Watched(tmp_path, p=STUBBORN)
    supervisor = watched.supervisor(grace_s=0.05)
    await supervisor.start()
    await watched.started()
    await watched.said("p")
    await supervisor.stop()
    assert await watched.next() == Ended("p", -signal.SIGKILL)


async def test_stop_right_after_start_starts_nothing(tmp_path):
    watched = Watched(tmp_path, p=FOREVER)
    supervisor = watched.supervisor()
    await supervisor.start()
    await supervisor.stop()
    assert watched.changes.empty()


async def test_stop_while_a_process_is_being_started_ends_it(tmp_path):
    watched = Watched(tmp_path, p=FOREVER)
    supervisor = watched.supervisor()
    await supervisor.start()
    await asyncio.sleep(0)  # one turn of the loop, in which the start begins
    await supervisor.stop()
    await watched.started()
    assert await watched.next() == Ended("p", -signal.SIGTERM)


async def test_stop_that_is_cancelled_kills(tmp_path):
    watched = Watched(tmp_path, p=STUBBORN)
    supervisor = watched.supervisor(grace_s=3600)
    await supervisor.start()
    with Life((await watched.started()).pid) as life:
        await watched.said("p")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await supervisor.stop()
        await asyncio.to_thread(life.over, LIMIT_S)
    await supervisor.stop()


async def test_what_a_process_started_ends_with_it(tmp_path):
    watched = Watched(tmp_path, p=PARENT)
    supervisor = watched.supervisor(backoff=Backoff(first_s=3600))
    await supervisor.start()
    parent = await watched.started()
    with Life(int(await watched.said("p"))) as child:
        os.kill(parent.pid, signal.SIGKILL)
        await watched.next()
        await asyncio.to_thread(child.over, LIMIT_S)
    await supervisor.stop()


async def test_stop_ends_the_whole_group(tmp_path):
    watched = Watched(tmp_path, p=PARENT)
    supervisor = watched.supervisor()
    await supervisor.start()
    await watched.started()
    with Life(int(await watched.said("p"))) as child:
        await supervisor.stop()
        await asyncio.to_thread(child.over, LIMIT_S)


async def test_processes_die_with_a_supervisor_that_is_killed(tmp_path):
    code = f"""
import asyncio, sys
from pathlib import Path
from mesh.local import leash
from mesh.local.plan import ProcessSpec
from mesh.local.supervisor import Supervisor

async def main():
    folder = Path({str(tmp_path)!r})
    spec = ProcessSpec("p", (sys.executable, "-c", {STUBBORN!r}), {{}}, folder)
    supervisor = Supervisor([spec], folder, on_change=lambda c: print(c.pid, flush=True))
    await supervisor.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    try:
        with Life(int(await parent.stdout.readline())) as child:
            # Not before the leash has become the program: it watches on its own until then.
            await eventually(lambda: (tmp_path / "p.log").read_text() == "up\n")
            parent.kill()
            await asyncio.to_thread(child.over, LIMIT_S)
    finally:
        await parent.wait()


def test_leash_does_not_start_a_program_whose_starter_is_gone(tmp_path):
    mark = tmp_path / "started"
    command = [sys.executable, leash.__file__, "1", "--", "/usr/bin/touch", str(mark)]
    assert subprocess.run(command, check=False).returncode == leash.EXIT_STARTER_GONE
    assert not mark.exists()


@pytest.mark.parametrize("program", ["/no/such/mlserver", "no-such-program", "/etc/passwd", "/etc"])
async def test_program_that_does_not_exist_fails_the_start_and_starts_nothing(tmp_path, program):
    watched = Watched(tmp_path, good=FOREVER)
    watched.specs.append(ProcessSpec("mlserver", (program, "start"), {}, tmp_path))
    supervisor = watched.supervisor()
    with pytest.raises(CannotStart, match=f"^cannot start mlserver: no executable {program}$"):
        await supervisor.start()
    await supervisor.stop()
    assert watched.changes.empty()


async def test_folder_that_does_not_exist_fails_the_start(tmp_path):
    watched = Watched(tmp_path)
    watched.specs = [spec(tmp_path / "none", "p", FOREVER)]
    with pytest.raises(CannotStart, match=f"^cannot start p: no directory {tmp_path}/none$"):
        await watched.supervisor().start()


async def test_program_that_vanishes_is_tried_again_until_it_is_back(tmp_path, caplog):
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o755)
    watched = Watched(tmp_path)
    watched.specs = [ProcessSpec("p", (str(program),), {}, tmp_path)]
    supervisor = watched.supervisor()
    await supervisor.start()
    await watched.started()
    assert await watched.next() == Ended("p", 5)
    program.rename(tmp_path / "away")
    await eventually(lambda: "process not started" in caplog.messages)
    for _ in range(watched.changes.qsize()):
        watched.changes.get_nowait()
    (tmp_path / "away").rename(program)
    await watched.started()
    await supervisor.stop()


def test_back_off_doubles_to_its_most_and_starts_again_after_a_long_run():
    backoff = Backoff()
    delays, delay_s = [], 0.0
    for lived_s in (0, 1, 1, 1, 1, 1, 9.9, 1, 10.0, 1, 11.0):
        delay_s = backoff.next_s(delay_s, lived_s)
        delays.append(delay_s)
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 0.1, 0.2, 0.1]
