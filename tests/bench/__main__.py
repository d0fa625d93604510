"""`python -m tests.bench [--quick]`: measures, prints the tables and writes `build/bench.json`."""

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench import first, measure, slow
from tests.bench.measure import CASES, Effort
from tests.bench.report import Report
from tests.bench.servers import ROOT, Missing, all_servers, check_programs

STARTED_S = time.monotonic()
WRITTEN = ROOT / "build/bench.json"
FULL = Effort(rounds=7, seconds=0.8)
QUICK = Effort(rounds=2, seconds=0.2)


def bench(*, is_quick: bool) -> Report:
    effort = QUICK if is_quick else FULL
    machine = measure.machine()
    with all_servers() as ways:
        measured = []
        for case in CASES:
            _say(str(case))
            measured.append(measure.measure(case, tuple(ways.values()), effort))
        _say("first requests")
        first_requests = first.measure(ways["direct"].address, 40 if is_quick else 200)
        slow_calls = {}
        for name in ("router",) if is_quick else ("bare", "router"):
            _say(f"slow calls, {name}")
            slow_calls[name] = slow.measure(ways[name], 1 if is_quick else 5)
    return Report(machine, asdict(effort), measured, slow_calls, first_requests)


def _say(what: str) -> None:
    print(f"… {time.monotonic() - STARTED_S:4.0f} s: {what}", file=sys.stderr, flush=True)


def main(written: Path = WRITTEN) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less than a minute, and rougher")
    given = parser.parse_args()
    try:
        check_programs()
    except Missing as missing:
        print(f"make bench: {missing}", file=sys.stderr)
        return 2
    report = bench(is_quick=given.quick)
    report.write(written)
    print(report.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
