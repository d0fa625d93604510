"""The table's measurements: each way to the backend, each number in flight, each size; in turns.

A round drives all ways one after the other, in another order each time, so that what else happens
on the machine meets all of them alike. A figure is the median of the rounds; a ratio is the median
of the ratios within a round.
"""

import itertools
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.calls import Caller, request
from tests.bench.load import Load, message_file, run
from tests.bench.servers import Server

IN_FLIGHT = (1, 8, 64)
PAYLOADS = (300, 64 * 1024, 4 * 1024 * 1024)
WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True)
class Case:
    in_flight: int
    payload_bytes: int

    def __str__(self) -> str:
        return f"{self.in_flight} in flight, {self.payload_bytes} bytes"


CASES = tuple(itertools.starmap(Case, itertools.product(IN_FLIGHT, PAYLOADS)))


@dataclass(frozen=True, slots=True)
class Sample:
    """One run; the names are those of `build/bench.json`."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_request: float
    rss_mb: float


FIELDS = tuple(Sample.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Effort:
    """How many rounds, and how long each run lasts."""

    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The rounds of one case, by the server's name."""

    case: Case
    rounds: Sequence[Mapping[str, Sample]]

    def median(self, name: str, what: str) -> float:
        return _median(getattr(samples[name], what) for samples in self.rounds)

    def ratio(self, name: str, to: str, what: str) -> float:
        """The median of the ratios of two that ran one after the other."""
        return _median(
            getattr(samples[name], what) / getattr(samples[to], what) for samples in self.rounds
        )


def measure(case: Case, servers: Sequence[Server], effort: Effort) -> Measured:
    turns = [_Turn(server, case, effort.seconds) for server in servers]
    rounds = []
    for number in range(effort.rounds):
        shift = number % len(turns)
        order = turns[shift:] + turns[:shift]
        rounds.append({turn.server.name: turn.take() for turn in order})
    return Measured(case, rounds)


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


class _Turn:
    """One server in one case; the first run finds how many requests fill the time."""

    def __init__(self, server: Server, case: Case, seconds: float) -> None:
        self.server = server
        self._message = request(server.named, case.payload_bytes)
        self._file = message_file(self._message, f"{server.name}-{case.payload_bytes}")
        self._in_flight = case.in_flight
        self._requests = case.in_flight
        while (loaded := run(self._load(), server)).seconds < WARM_UP_S / 10:
            self._requests = self._count(loaded.requests_per_s, WARM_UP_S)
        self._requests = self._count(loaded.requests_per_s, seconds)

    def take(self) -> Sample:
        with Caller(self.server) as caller:
            caller.check(self._message)
            before_s = cpu_s(self.server.pid)
            loaded = run(self._load(), self.server)
            spent_s = cpu_s(self.server.pid) - before_s
            caller.check(self._message)
        return Sample(
            loaded.requests_per_s,
            loaded.percentile_ms(0.5),
            loaded.percentile_ms(0.99),
            spent_s * 1e6 / self._requests,
            rss_mb(self.server.pid),
        )

    def _load(self) -> Load:
        return Load(self._file, self._in_flight, self._requests)

    def _count(self, requests_per_s: float, seconds: float) -> int:
        """A multiple of what is in flight, so that no connection is done before the others."""
        return self._in_flight * max(1, round(requests_per_s * seconds / self._in_flight))


def cpu_s(pid: int) -> float:
    """The CPU time of a process so far: utime + stime, without the rounding of /proc/PID/stat."""
    return time.clock_gettime((~pid << 3) | 2)


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024 / 1e6


def machine() -> dict[str, object]:
    """Where it was measured, and how busy that was before."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else "unknown",
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
    }
