"""Becomes another program that dies with the process that started it, even by kill -9.

Run as a script: `leash.py <pid of the starter> [NAME=VALUE ...] -- <program> [arguments]`. The
program keeps our pid, and our environment with those values on top. A step between, rather than a
`preexec_fn`, which is not safe where gRPC has threads. The kernel ties the program to the *thread*
that started it: start it from one that lives as long, such as that of the event loop. Where there
is no prctl (not Linux), nothing ties it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
# What a shell answers where it could not start a program.
EXIT_STARTER_GONE = 125
EXIT_NOT_STARTED = 126


def main() -> None:
    starter = int(sys.argv[1])
    end = sys.argv.index("--")
    added = dict(text.split("=", 1) for text in sys.argv[2:end])
    program = sys.argv[end + 1]
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before the kernel was asked.
    if os.getppid() != starter:
        sys.exit(EXIT_STARTER_GONE)
    try:
        # It is handed on, not read.
        environment = {**os.environ, **added}  # noqa: TID251
        os.execve(program, sys.argv[end + 1 :], environment)  # noqa: S606 - what it is for
    except OSError as error:
        print(f"cannot start {program}: {error}", file=sys.stderr)
        sys.exit(EXIT_NOT_STARTED)


if __name__ == "__main__":
    main()
