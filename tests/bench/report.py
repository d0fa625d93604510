"""What is printed and written: tables for people, `build/bench.json` for programs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.bench.first import FirstRequests
from tests.bench.measure import FIELDS, Case, Measured
from tests.bench.slow import SlowCalls

NAMES = ("direct", "envoy", "bare", "router")
DECIMALS = {
    "requests_per_s": 0,
    "p50_ms": 2,
    "p99_ms": 2,
    "cpu_us_per_request": 1,
    "rss_mb": 0,
}
AIMED_CASE = Case(8, 300)
AIM_CPU_TO_BARE = 1.15
AIM_ADDED_MS = 5.0
AIM_FIRST_MS = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured; `machine` says where, and `effort` how thoroughly."""

    machine: Mapping[str, Any]
    effort: Mapping[str, Any]
    measured: Sequence[Measured]
    slow: Mapping[str, SlowCalls]
    first: FirstRequests

    def write(self, path: Path) -> None:
        document = {
            "machine": self.machine,
            "effort": self.effort,
            "rows": [_row(one, name) for one in self.measured for name in NAMES],
            "router_ratios": [_ratios(one) for one in self.measured],
            "slow_calls": [{"name": name} | asdict(one) for name, one in self.slow.items()],
            "first_request": asdict(self.first),
            "aims": [aim.__dict__ for aim in self.aims()],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")

    def text(self) -> str:
        """Markdown."""
        return "\n".join((*self._table(), "", *self._extra(), "", *self._aims()))

    def aims(self) -> "list[Aim]":
        aimed = next(one for one in self.measured if one.case == AIMED_CASE)
        cpu = aimed.ratio("router", "bare", "cpu_us_per_request")
        slow = self.slow["router"]
        return [
            Aim(f"CPU, router ÷ bare ({AIMED_CASE})", cpu, AIM_CPU_TO_BARE, ""),
            Aim("added by 256 slow calls to another model, p50", slow.added_p50_ms, AIM_ADDED_MS),
            Aim("added by 256 slow calls to another model, p99", slow.added_p99_ms, AIM_ADDED_MS),
            Aim("first request over the load", self.first.over_load_p50_ms, AIM_FIRST_MS),
        ]

    def _table(self) -> Iterable[str]:
        yield from _header(
            "in flight",
            "message",
            "way",
            "requests/s",
            "÷ direct",
            "÷ envoy",
            "÷ bare",
            "p50 ms",
            "p99 ms",
            "CPU µs",
            "÷ envoy",
            "÷ bare",
            "RSS MB",
        )
        for one in self.measured:
            for name in NAMES:
                rates = [one.ratio(name, to, "requests_per_s") for to in NAMES[:3]]
                cpus = [one.ratio(name, to, "cpu_us_per_request") for to in ("envoy", "bare")]
                figure = {what: _figure(one.median(name, what), what) for what in FIELDS}
                yield _line(
                    one.case.in_flight,
                    size(one.case.payload_bytes),
                    name,
                    figure["requests_per_s"],
                    *(f"{ratio:.2f}" for ratio in rates),
                    figure["p50_ms"],
                    figure["p99_ms"],
                    figure["cpu_us_per_request"],
                    *(f"{ratio:.2f}" for ratio in cpus),
                    figure["rss_mb"],
                )

    def _extra(self) -> Iterable[str]:
        yield from _header(
            "slow calls", "p50 ms without", "added", "p99 ms without", "added", "longest in a burst"
        )
        for name, slow in self.slow.items():
            figures = (
                slow.p50_without_ms,
                slow.added_p50_ms,
                slow.p99_without_ms,
                slow.added_p99_ms,
                slow.burst_max_ms,
            )
            yield _line(name, *(f"{figure:.2f}" for figure in figures))
        yield ""
        yield from _header(
            "first request", "load ms", "p50 ms over it", "p99 ms over it", "a warm call ms"
        )
        first = self.first
        overs = (first.over_load_p50_ms, first.over_load_p99_ms, first.warm_ms)
        models = f"{first.models} models"
        yield _line(models, f"{first.load_ms:.0f}", *(f"{over:.2f}" for over in overs))

    def _aims(self) -> Iterable[str]:
        yield from _header("aim", "at most", "measured", "")
        for aim in self.aims():
            verdict = "met" if aim.is_met else "missed"
            yield _line(
                aim.what, f"{aim.at_most:g} {aim.unit}".strip(), f"{aim.value:.2f}", verdict
            )


class Aim:
    """A figure that should not exceed another."""

    def __init__(self, what: str, value: float, at_most: float, unit: str = "ms") -> None:
        self.what, self.value, self.at_most, self.unit = what, value, at_most, unit
        self.is_met = value <= at_most


def size(payload_bytes: int) -> str:
    """300 B, 64 KiB, 4 MiB."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if payload_bytes >= factor:
            return f"{payload_bytes // factor} {unit}"
    return f"{payload_bytes} B"


def _row(one: Measured, name: str) -> dict[str, Any]:
    figures = {what: round(one.median(name, what), 3) for what in FIELDS}
    return {"name": name, **asdict(one.case), **figures}


def _ratios(one: Measured) -> dict[str, Any]:
    found = {
        f"{what}_to_{to}": round(one.ratio("router", to, what), 3)
        for what in ("requests_per_s", "cpu_us_per_request")
        for to in NAMES[:3]
    }
    return {**asdict(one.case), **found}


def _figure(value: float, what: str) -> str:
    return f"{value:,.{DECIMALS[what]}f}"


def _header(*cells: str) -> tuple[str, str]:
    return _line(*cells), "|" + "---|" * len(cells)


def _line(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
