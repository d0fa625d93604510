"""A simulated mesh under the rules of mesh.core: `make simulate`.

It says what a rule or a threshold is worth: hit rate against an oracle, evictions, waits for cold
models, load on the busiest node, copies over time.
"""

import argparse
from array import array
from dataclasses import dataclass, field, fields
from statistics import fmean
from time import perf_counter

from tests.bench import simulate_oracle
from tests.bench.simulate_mesh import RATE_S, Mesh, Rules, Tally
from tests.bench.simulate_traffic import Plan, Traffic

HOUR_S = 3600.0
# Of the hot models so much of the trace goes to the oracle: one use a minute.
ORACLE_S = 60.0
IDLE_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The copies at one time: of all models, of the ten used most, and models with several."""

    time_s: float
    copies: int
    models: int
    several: int
    first: int
    ten: float


@dataclass(slots=True)
class Outcome:
    tally: Tally
    oracle_misses: int
    uses: int
    busiest: list[float] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        return self.tally.hits / self.tally.requests

    @property
    def oracle_hit_rate(self) -> float:
        return 1 - self.oracle_misses / self.tally.requests

    @property
    def busiest_ratio(self) -> float:
        return fmean(self.busiest)


def simulate(plan: Plan, rules: Rules | None = None, *, with_oracle: bool = True) -> Outcome:
    """Runs the plan. The first twelfth of the time warms the caches and is not counted."""
    traffic = Traffic(plan)
    mesh = Mesh(plan, traffic, rules or Rules())
    warm_s, end_s = plan.hours * HOUR_S / 12, plan.hours * HOUR_S
    trace, counted = array("l"), 0
    outcome = Outcome(mesh.tally, 0, 0)
    for tick in range(int(end_s / plan.tick_s)):
        now = tick * plan.tick_s
        if warm_s <= now < warm_s + plan.tick_s:
            outcome.tally = mesh.tally = Tally()
            counted = len(trace)
            outcome.busiest.clear()
        _change(mesh, traffic, plan, now)
        if _is_time(now, RATE_S, plan.tick_s):
            mean, highest = mesh.measure_rates()
            outcome.busiest.append(highest / mean if mean else 0.0)
        if _is_time(now, plan.hours * HOUR_S / 24, plan.tick_s):
            outcome.samples.append(_sample(mesh, traffic, now))
        if _is_time(now, IDLE_LOOK_S, plan.tick_s):
            mesh.look_over(now)
        for_oracle = _is_time(now, ORACLE_S, plan.tick_s)
        for model, count in traffic.counts(now):
            mesh.use(model, count, now)
            if for_oracle:
                trace.append(model)
        for at, model in traffic.singles(now):
            mesh.use(model, 1, at)
            trace.append(model)
    if with_oracle:
        all_bytes = plan.nodes * plan.node_bytes
        whole = simulate_oracle.misses(trace, all_bytes, traffic.size_bytes)
        outcome.oracle_misses = whole - simulate_oracle.misses(
            trace[:counted], all_bytes, traffic.size_bytes
        )
    outcome.uses = len(trace) - counted
    return outcome


def _change(mesh: Mesh, traffic: Traffic, plan: Plan, now: float) -> None:
    """Nodes die and come; models become popular."""
    if now and _is_time(now, plan.churn_s, plan.tick_s):
        mesh.kill_one()
        mesh.join(now)
    if now and _is_time(now, plan.shift_s, plan.tick_s):
        traffic.shift()


def _is_time(now: float, every_s: float, tick_s: float) -> bool:
    """Whether a multiple of `every_s` lies in the tick that begins now."""
    return now % every_s < tick_s


def _sample(mesh: Mesh, traffic: Traffic, now: float) -> Sample:
    counts = [len(copies) for copies in mesh.copies.values()]
    of_hot = [len(mesh.copies.get(traffic.ranked(rank), ())) for rank in range(10)]
    several = sum(count > 1 for count in counts)
    return Sample(now, sum(counts), len(counts), several, of_hot[0], fmean(of_hot))


def report(plan: Plan, outcome: Outcome, wall_s: float) -> str:
    tally = outcome.tally
    waits_s = sorted(tally.waits_s) or [0.0]
    lines = [
        f"plan            {plan}",
        f"requests        {tally.requests:,} in {wall_s:.0f} s of wall clock",
        f"hit rate        {outcome.hit_rate:.5%}, Bélády {outcome.oracle_hit_rate:.5%}",
        f"loads           {tally.loads:,}: {tally.grown:,} further copies, of these"
        f" {tally.seconds:,} second ones of models used again; {tally.shrunk:,} given up",
        f"evictions       {tally.evictions:,}; refused {tally.refusals:,}",
        f"cold waits      mean {fmean(waits_s):.2f} s, 99 % {waits_s[len(waits_s) * 99 // 100]:.2f}"
        f" s, longest {waits_s[-1]:.2f} s",
        f"busiest node    {outcome.busiest_ratio:.1f} x the mean of requests/s,"
        f" at most {max(outcome.busiest):.1f} x (half minutes)",
        "hour   copies  models  with several  of the first  of the first ten",
    ]
    lines += [
        f"{at.time_s / HOUR_S:4.2f} {at.copies:8,} {at.models:7,} {at.several:9,} {at.first:13}"
        f" {at.ten:15.1f}"
        for at in outcome.samples
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for item in fields(Plan):
        kind = float if isinstance(item.default, float) else int
        parser.add_argument(f"--{item.name.replace('_', '-')}", type=kind, default=item.default)
    plan = Plan(**vars(parser.parse_args()))
    begin_s = perf_counter()
    outcome = simulate(plan)
    print(report(plan, outcome, perf_counter() - begin_s))


if __name__ == "__main__":
    main()
