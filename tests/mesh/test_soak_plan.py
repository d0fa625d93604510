"""What a soak does is drawn from its seed, and sooner or later is everything."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench import soak_plan as plans
from tests.bench.soak_plan import Plan

NODES, NAMES = 3, 20
ROOT = Path(__file__).resolve().parents[2]
# Long enough for a deck of node faults of which each lasts as long as it can.
A_DECK_S = 80.0


def plan_of(seed: int, seconds: float = 600.0) -> Plan:
    return plans.plan(seconds, seed, nodes=NODES, names=NAMES)


def test_plan_is_equal_for_a_seed_and_another_for_another():
    plan, other = plan_of(7), plan_of(8)
    assert plan == plan_of(7)
    assert plan.node_faults != other.node_faults
    assert plan.outages != other.outages
    assert plan.changes != other.changes


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_plan_of_another_process_is_equal_for_a_seed(hash_seed: str):
    """Each process orders sets in a way of its own."""
    code = "from tests.mesh.test_soak_plan import plan_of; print(plan_of(7))"
    environment = {"PYTHONHASHSEED": hash_seed}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True
    )
    assert ended.stdout.decode().strip() == str(plan_of(7))


@pytest.mark.parametrize("seed", range(1, 21))
def test_plan_deals_every_kind_of_node_fault_before_any_comes_again(seed):
    kinds = [step.kind for step in plan_of(seed, A_DECK_S).node_faults]
    count = len(plans.NODE_FAULTS)
    assert sorted(kinds[:count]) == sorted(plans.NODE_FAULTS)


@pytest.mark.parametrize("seed", range(1, 21))
def test_plan_deals_every_kind_of_outage_and_of_change(seed):
    plan = plan_of(seed)
    assert {step.kind for step in plan.outages} == {plans.OUTAGE, plans.WIPE}
    assert {step.kind for step in plan.changes} == {
        *(plans.CREATE, plans.UPDATE, plans.TO_AND_FRO, plans.BREAK, plans.DELETE, plans.CROWD)
    }


@pytest.mark.parametrize("seed", range(1, 21))
def test_plan_has_one_fault_of_a_lane_at_a_time_and_none_after_the_end(seed):
    plan = plan_of(seed)
    for lane in (plan.node_faults, plan.outages):
        for step, following in pairwise(lane):
            assert step.at_s + step.for_s < following.at_s
    assert all(step.at_s < 600.0 for lane in (plan.node_faults, plan.changes) for step in lane)
    assert {step.node for step in plan.node_faults} == set(range(NODES))


@pytest.mark.parametrize("seed", range(1, 21))
def test_plan_changes_only_predictors_that_should_be_there(seed):
    there = {f"p{number}" for number in range(NAMES)}
    deleted: set[str] = set()
    for step in plan_of(seed).changes:
        if step.kind == plans.CREATE:
            assert step.name not in there | deleted
            there.add(step.name)
        assert step.name in there
        if step.kind == plans.DELETE:
            there.remove(step.name)
            deleted.add(step.name)
    assert len(there) >= NAMES // 2
