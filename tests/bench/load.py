"""h2load: load by a native client, and what its log says of each request."""

import re
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.bench.servers import WORK, Server

METHOD = "inference.GRPCInferenceService/ModelInfer"
HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")
LIMIT_S = 300.0
# More in flight are spread over as many connections, as those of so many clients are.
STREAMS_A_CONNECTION = 16
RATE = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
COUNTS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded")

_numbers = count()


class Failed(Exception):
    """h2load says that requests failed; the text is what it printed."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it began, in seconds since 1970, and how long its answer took."""

    start_s: float
    took_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + self.took_s


@dataclass(frozen=True, slots=True)
class Load:
    """`count` requests of one message, so many in flight; or for `seconds` where count is 0."""

    message: Path
    in_flight: int
    count: int = 0
    seconds: float = 0.0

    def command(self, server: Server, log: Path) -> list[str]:
        connections = max(1, self.in_flight // STREAMS_A_CONNECTION)
        bound = f"-n{self.count}" if self.count else f"-D{round(self.seconds * 1000)}ms"
        return [
            "h2load",
            bound,
            f"-c{connections}",
            f"-m{self.in_flight // connections}",
            "-t1",
            f"--data={self.message}",
            f"--log-file={log}",
            *HEADERS,
            f"http://{server.address}/{METHOD}",
        ]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a load."""

    requests_per_s: float
    answered: Sequence[Answered]

    @property
    def seconds(self) -> float:
        return len(self.answered) / self.requests_per_s

    def percentile_ms(self, share: float) -> float:
        return percentile([answer.took_s for answer in self.answered], share) * 1000


class Running:
    """A load under way."""

    def __init__(self, load: Load, server: Server) -> None:
        self._log = WORK / f"h2load-{next(_numbers)}.log"
        self._load = load
        self._process = subprocess.Popen(
            load.command(server, self._log),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> Loaded:
        """Its outcome. Raises Failed where a request did not succeed."""
        printed, _ = self._process.communicate(timeout=LIMIT_S)
        rate, counts = RATE.search(printed), COUNTS.search(printed)
        if rate is None or counts is None:
            raise Failed(printed)
        if self._load.count and counts.groups() != (str(self._load.count),) * 2:
            raise Failed(printed)
        answered = _read(self._log)
        self._log.unlink()
        return Loaded(float(rate[1]), answered)


def run(load: Load, server: Server) -> Loaded:
    return Running(load, server).wait()


def message_file(message: kfs.ModelInferRequest, name: str) -> Path:
    """A file with the body of the call: gRPC's prefix and the message."""
    encoded = message.SerializeToString()
    path = WORK / f"{name}.bin"
    path.write_bytes(struct.pack(">BI", 0, len(encoded)) + encoded)
    return path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _read(log: Path) -> list[Answered]:
    answered = []
    for line in log.read_text().splitlines():
        start_us, status, took_us = line.split("\t")[:3]
        if status != "200":
            raise Failed(f"a request ended by HTTP status {status}")
        answered.append(Answered(int(start_us) / 1e6, int(took_us) / 1e6))
    return answered
