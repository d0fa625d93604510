"""`make soak` in a short form: the program itself, on a real etcd and real node processes."""

import re
from pathlib import Path

import pytest

from tests.bench import soak_plan as plans
from tests.bench.soak import NODES, PREDICTORS, RPS
from tests.support.programs import run_program

SECONDS = 15.0
# A node, a runtime and the store's data are lost, another node is restarted; every kind of change.
SEED = 143
WITHIN_S = 200.0
LAST_LINE = re.compile(
    r"soak: (?P<requests>\d+) requests, 0 lost, \d+ excused, (?P<faults>\d+) faults, "
    rf"(?P<changes>\d+) changes, (?P<loads>\d+) loads, 0 disagreements, 15 s, seed {SEED}"
)


@pytest.mark.timeout(WITHIN_S + 30)
def test_soak_loses_nothing_and_sums_up(tmp_path: Path):
    plan = plans.plan(SECONDS, SEED, nodes=NODES, names=PREDICTORS)
    assert {step.kind for step in (*plan.node_faults, *plan.outages)} == {
        *(plans.KILL, plans.KILL_RUNTIME, plans.RESTART, plans.WIPE)
    }
    words = ["--seconds", str(SECONDS), "--seed", str(SEED), "--folder", str(tmp_path)]
    code, said = run_program("tests.bench.soak", *words, within_s=WITHIN_S)
    summed_up = LAST_LINE.fullmatch(said.splitlines()[-1])
    assert code == 0, said
    assert summed_up is not None, said
    counted = {what: int(count) for what, count in summed_up.groupdict().items()}
    assert counted["faults"] == len(plan.node_faults) + len(plan.outages)
    assert counted["changes"] == len(plan.changes)
    assert counted["requests"] > SECONDS * RPS / 2
    assert counted["loads"] > 0
