"""The rules at work in a small simulated mesh: a rule that is broken moves the figures."""

from array import array
from dataclasses import replace
from functools import cache

import pytest

from mesh.core.demand import DEFAULTS
from mesh.core.placement_order import SORTERS, Sorter
from tests.bench import simulate_oracle
from tests.bench.simulate import Outcome, report, simulate
from tests.bench.simulate_mesh import Rules
from tests.bench.simulate_traffic import Plan

PLAN = Plan(
    nodes=10,
    models=2000,
    hours=0.1,
    rps=300.0,
    zipf=1.8,
    churn_s=100.0,
    node_bytes=1 << 27,
)


@cache
def as_it_is() -> Outcome:
    return simulate(PLAN)


def worst_first(sorter: Sorter) -> Sorter:
    return lambda nodes, wish: [-rank for rank in sorter(nodes, wish)]


def test_mesh_hits_nearly_as_often_as_one_that_knows_the_future():
    outcome = as_it_is()
    assert outcome.tally.requests > 90_000
    assert outcome.tally.evictions > 100
    assert outcome.tally.refusals == 0
    assert 0.9 < outcome.hit_rate < outcome.oracle_hit_rate < 1
    assert max(outcome.tally.waits_s) < 30


def test_simulation_says_what_is_asked_of_it():
    said = report(PLAN, as_it_is(), 1.0)
    for word in ("hit rate", "Bélády", "evictions", "busiest node", "copies  models"):
        assert word in said
    assert simulate(PLAN, with_oracle=False).tally == as_it_is().tally


def test_order_that_takes_the_worst_node_shows_in_hits_and_waits():
    broken = simulate(PLAN, Rules(sorters=tuple(map(worst_first, SORTERS))), with_oracle=False)
    assert broken.hit_rate < as_it_is().hit_rate - 0.02
    assert max(broken.tally.waits_s) > 2 * max(as_it_is().tally.waits_s)


@pytest.mark.parametrize(("rpm", "are_more"), [(200, True), (200_000, False)])
def test_threshold_of_the_request_rate_shows_in_copies(rpm, are_more):
    thresholds = replace(DEFAULTS, rps=rpm / 60)
    outcome = simulate(PLAN, Rules(thresholds=thresholds), with_oracle=False)
    copies, usual = outcome.samples[-1].ten, as_it_is().samples[-1].ten
    assert copies > usual if are_more else copies < usual


def test_oracle_keeps_what_is_used_next():
    trace = array("l", [1, 2, 3, 1, 2, 1, 4, 1])
    assert simulate_oracle.misses(trace, 2, lambda _: 1) == 4
    assert simulate_oracle.misses(trace, 1, lambda _: 1) == 5
