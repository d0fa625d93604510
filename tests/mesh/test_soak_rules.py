"""What a soak takes for lost, on what was done and pictures made by hand."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bench import soak_plan as plans
from tests.bench.soak import main
from tests.bench.soak_rules import NOTICED_S, Ledger, Result, misanswered
from tests.support.builders import predictor
from tests.support.mesh_checks import Picture
from tests.support.mesh_client import OK, Asked


def picture_of(**active: str) -> Picture:
    """The store's Predictors by name, with their models."""
    return Picture(
        nodes={},
        predictors={it.name: it for it in (predictor(n, active=m) for n, m in active.items())},
        models={},
        copies={},
        claims=(),
        views={},
        held={},
        running=set(),
    )


def ledger_of(**confirmed: str) -> Ledger:
    ledger = Ledger()
    for name, model in confirmed.items():
        ledger.confirm(name, model)
    return ledger


def asked(outcome: str, *, name: str = "p", start_s: float = 0.0, end_s: float = 0.0, model=""):
    return Asked(name, start_s, end_s, outcome, model)


# Predictors.


def test_predictors_as_confirmed_are_not_amiss():
    assert list(ledger_of(p="p-1", q="q-1").amiss(picture_of(p="p-1", q="q-1"))) == []


def test_predictor_of_the_start_that_is_gone_is_amiss():
    assert list(ledger_of(p="p-1", q="q-1").amiss(picture_of(p="p-1"))) == ["q is gone"]


def test_predictor_with_an_older_model_than_confirmed_is_amiss():
    ledger = ledger_of(p="p-1")
    ledger.change("p")
    ledger.confirm("p", "p-2")
    assert list(ledger.amiss(picture_of(p="p-1"))) == ["p has p-1, confirmed was p-2"]


def test_deleted_predictor_that_rose_again_is_amiss():
    ledger = ledger_of(p="p-1", q="q-1")
    ledger.delete("q", 1.0)
    ledger.confirm_deleted("q")
    assert list(ledger.amiss(picture_of(p="p-1"))) == []
    assert list(ledger.amiss(picture_of(p="p-1", q="q-1"))) == ["q rose again"]


def test_predictor_that_nobody_made_is_amiss():
    ledger = ledger_of(p="p-1")
    assert list(ledger.amiss(picture_of(p="p-1", x="x-1"))) == ["x was made by nobody"]


@pytest.mark.parametrize("there", [{}, {"p": "p-1"}, {"p": "p-2"}])
def test_predictor_with_an_unconfirmed_change_may_be_either(there):
    changed, deleted, created = ledger_of(p="p-1"), ledger_of(p="p-1"), ledger_of()
    changed.change("p")
    deleted.delete("p", 1.0)
    created.change("p")
    for ledger in (changed, deleted, created):
        assert list(ledger.amiss(picture_of(**there))) == []


def test_every_predictor_that_ever_was_is_asked_in_the_end():
    ledger = ledger_of(p="p-1", q="q-1")
    ledger.change("r")
    ledger.delete("q", 1.0)
    ledger.confirm_deleted("q")
    assert ledger.names() == ["p", "q", "r"]


# Answers in the end.


@pytest.mark.parametrize(
    ("answer", "is_amiss"),
    [
        (asked(OK, model="p-1"), False),
        (asked(OK, model="p-0"), True),
        (asked("UNAVAILABLE"), True),
        (asked("NOT_FOUND", name="deleted"), False),
        (asked(OK, name="deleted", model="deleted-1"), True),
        (asked("UNAVAILABLE", name="deleted"), True),
    ],
)
def test_answer_that_does_not_fit_the_store_is_told(answer, is_amiss):
    problems = list(misanswered(picture_of(p="p-1"), [("here", answer)]))
    assert [problem.split()[0] for problem in problems] == ["here"] * is_amiss


# Excuses.


@pytest.mark.parametrize("kind", NOTICED_S)
@pytest.mark.parametrize(
    ("start", "end_s", "is_excused"),
    [(-9.0, -0.1, False), (-9.0, 0.1, True), (0.9, 2.0, True), (1.1, 2.0, False)],
    ids=["before", "in flight", "near", "after"],
)
def test_unavailable_is_excused_only_about_a_fault(kind, start, end_s, is_excused):
    """Starts that are positive: in parts of the time in which the fault is noticed."""
    ledger = Ledger()
    ledger.fault(kind, 100.0)
    start_s = 100.0 + (start * NOTICED_S[kind] if start > 0 else start)
    request = asked("UNAVAILABLE", start_s=start_s, end_s=max(start_s, 100.0 + end_s))
    assert ledger.excuse(request) == (kind if is_excused else "")


@pytest.mark.parametrize(
    "kind", [plans.RESTART, plans.FORGET, plans.JOIN, plans.OUTAGE, plans.WIPE]
)
def test_fault_that_costs_nothing_excuses_nothing(kind):
    ledger = Ledger()
    ledger.fault(kind, 100.0)
    assert ledger.excuse(asked("UNAVAILABLE", start_s=99.0, end_s=101.0)) == ""


@pytest.mark.parametrize("outcome", ["WRONG MODEL", "DEADLINE_EXCEEDED", "INTERNAL", "NOT_FOUND"])
def test_other_outcomes_are_not_excused_by_a_fault(outcome):
    ledger = Ledger()
    ledger.fault(plans.KILL, 100.0)
    assert ledger.excuse(asked(outcome, start_s=99.0, end_s=101.0)) == ""


def test_not_found_is_excused_from_a_delete_on_for_that_predictor():
    ledger = ledger_of(p="p-1", q="q-1")
    ledger.delete("p", 100.0)
    assert ledger.excuse(asked("NOT_FOUND", start_s=99.0, end_s=101.0)) == "deleted"
    assert ledger.excuse(asked("NOT_FOUND", start_s=98.0, end_s=99.0)) == ""
    assert ledger.excuse(asked("NOT_FOUND", name="q", start_s=99.0, end_s=101.0)) == ""


# What it ends with.


def result_of(*, lost: int = 0, disagreements: int = 0, seconds: float = 20.0, seed: int = 3):
    return Result(
        *(1200, lost, 7, 5, 23, 90, disagreements),
        seconds=seconds,
        seed=seed,
    )


@pytest.mark.parametrize(("lost", "disagreements"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_exit_code_is_not_zero_where_anything_was_lost_or_disagrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lost: int, disagreements: int
):
    async def run(seconds: float, seed: int, folder: Path, without: Sequence[str]) -> Result:
        assert (folder, without) == (tmp_path, ["kill"])
        return result_of(lost=lost, disagreements=disagreements, seconds=seconds, seed=seed)

    arguments = ["--seconds", "20", "--seed", "3", "--folder", str(tmp_path), "--without", "kill"]
    code = main(arguments, run)
    assert (code != 0) == bool(lost or disagreements)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"soak: 1200 requests, {lost} lost, 7 excused, 5 faults, 23 changes, 90 loads, "
        f"{disagreements} disagreements, 20 s, seed 3"
    )
