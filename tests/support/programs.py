"""Runs the programs of `tests/bench` as a user does, each a process that starts many others."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What it started is ended by itself, so it has time for that.
ENDING_S = 20.0


def run_program(module: str, *words: str, within_s: float) -> tuple[int, str]:
    """Its exit code and all that it printed; raises TimeoutExpired where it does not end."""
    command = [sys.executable, "-m", module, *words]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=within_s)
        finally:
            if process.poll() is None:
                _end(process)
        return process.returncode, said


def _end(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=ENDING_S)
    process.kill()
