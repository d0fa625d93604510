"""What each rule and threshold is worth: the simulation with one of them changed at a time.

`make simulate COMPARE=1`. docs/decisions/0007 has the figures.
"""

from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from mesh.core import placement_order as order
from mesh.core.demand import DEFAULTS
from tests.bench.simulate import Outcome, simulate
from tests.bench.simulate_mesh import Rules
from tests.bench.simulate_traffic import Plan

PLAN = Plan(nodes=100, models=100_000, hours=1.0, rps=500.0, zipf=1.4, churn_s=900.0, shift_s=60.0)
HEADER = (
    "variant                    hit %   Bélády    loads  further   given up  wait, 99 % s"
    "  busiest  copies of ten"
)


def variants() -> Iterator[tuple[str, Rules]]:
    yield "as it is", Rules()
    yield "no second copies", Rules(is_second_copy=False)
    for sorter in (order.by_backlog, order.by_room, order.by_age, order.by_loads):
        yield f"without {sorter.__name__}", Rules(sorters=without(sorter))
    yield "without by_request_rate", Rules(sorters=without(order.by_request_rate))
    yield "by rendezvous alone", Rules(sorters=())
    for rpm in (500, 1000, 4000, 8000):
        yield f"{rpm} requests/min a copy", Rules(thresholds=replace(DEFAULTS, rps=rpm / 60))
    for share in (0.3, 0.95):
        yield f"shrinks below {share}", Rules(thresholds=replace(DEFAULTS, shrink_below=share))
    for keep_s in (30.0, 1800.0):
        thresholds = replace(DEFAULTS, keep_s=keep_s)
        yield f"remembers {keep_s / 60:g} min", Rules(thresholds=thresholds)


def without(sorter: order.Sorter) -> tuple[order.Sorter, ...]:
    return tuple(other for other in order.SORTERS if other is not sorter)


def row(name: str, outcome: Outcome) -> str:
    tally = outcome.tally
    waits_s = sorted(tally.waits_s)
    ten = fmean(sample.ten for sample in outcome.samples[1:])
    return (
        f"{name:24} {outcome.hit_rate:6.3%} {outcome.oracle_hit_rate:8.3%} {tally.loads:8,}"
        f" {tally.grown:8,} {tally.shrunk:10,} {waits_s[len(waits_s) * 99 // 100]:12.2f}"
        f" {outcome.busiest_ratio:8.1f} {ten:14.1f}"
    )


def main() -> None:
    print(PLAN)
    print(HEADER)
    for name, rules in variants():
        print(row(name, simulate(PLAN, rules)), flush=True)


if __name__ == "__main__":
    main()
