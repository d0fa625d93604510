"""How many copies: looks of one holder by example, all holders of a model by properties."""

from dataclasses import dataclass, field, replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.demand import (
    DEFAULTS,
    Grow,
    Keep,
    Past,
    Shrink,
    Situation,
    Verdict,
    born,
    look,
    need,
)

LOOK_S = DEFAULTS.look_s
MINUTE_S = 60.0
BUSY_RPS = 2 * DEFAULTS.rps
ALONE = Situation(rps=0.0, in_flight=0.0, loaded=1, loading=0, rank=0, fit=8)


def looks(situation: Situation, times: int, past: Past | None = None, now: float = 0.0):
    """The last verdict of so many looks, and the past and time after it."""
    past = born(now=now) if past is None else past
    verdict: Verdict | None = None
    for _ in range(times):
        now += LOOK_S
        past, verdict = look(past, situation, now=now)
    return verdict, past, now


@pytest.mark.parametrize(
    "used",
    [{"rps": 2.5 * DEFAULTS.rps}, {"in_flight": 2.5 * DEFAULTS.in_flight}],
)
def test_copies_grow_with_rate_and_with_concurrency(used):
    verdict, _, _ = looks(replace(ALONE, **used), 2)
    assert isinstance(verdict, Grow)
    assert (verdict.to, verdict.fill) == (3, False)
    assert "requests/s a copy" in verdict.reason


def test_need_counts_the_use_of_all_copies():
    assert need(replace(ALONE, rps=DEFAULTS.rps, loaded=3)) == pytest.approx(3)


def test_burst_that_is_over_at_the_next_look_grows_nothing():
    verdict, past, now = looks(replace(ALONE, rps=BUSY_RPS), 1)
    assert verdict == Keep("enough")
    assert looks(ALONE, 1, past, now)[0] == Keep("enough")


def test_only_the_first_holder_lets_copies_grow():
    busy = replace(ALONE, rps=BUSY_RPS, loaded=2, rank=1)
    assert isinstance(looks(busy, 2)[0], Keep)
    assert isinstance(looks(replace(busy, rank=0), 2)[0], Grow)
    least = replace(ALONE, min_copies=3, loaded=2)
    assert looks(least, 1)[0] == Grow(3, "the Predictor asks for 3")
    assert isinstance(looks(replace(least, rank=1), 1)[0], Keep)


@pytest.mark.parametrize(
    ("fields", "to"),
    [
        ({}, 5),  # half of eight more
        ({"fit": 40}, 20),
        ({"fit": 3}, 2),
        ({"fit": 40, "max_copies": 4}, 4),
        ({"fit": 40, "loading": 2}, 20),
    ],
)
def test_growth_is_bounded_by_step_fit_nodes_and_the_predictor(fields, to):
    verdict, _, _ = looks(replace(ALONE, rps=20 * DEFAULTS.rps, **fields), 2)
    assert isinstance(verdict, Grow)
    assert verdict.to == to


@pytest.mark.parametrize("fields", [{"fit": 1}, {"max_copies": 1}, {"loading": 2, "fit": 3}])
def test_copies_do_not_grow_where_there_may_be_no_more(fields):
    assert isinstance(looks(replace(ALONE, rps=20 * DEFAULTS.rps, **fields), 2)[0], Keep)


def test_copies_asked_for_that_no_node_can_take_are_not_asked_for_again_and_again():
    assert isinstance(looks(replace(ALONE, min_copies=3, fit=1), 2)[0], Keep)


def test_surplus_goes_within_half_a_minute_last_in_order_first():
    two = replace(ALONE, loaded=2, rank=1)
    assert looks(two, 3)[0] == Keep("too many, but not for long yet")
    verdict, past, now = looks(two, 4)
    assert verdict == Shrink("2 copies, and fewer are enough")
    assert now <= 30
    assert looks(replace(two, rank=0), 4)[0] == Keep("the last in order goes first")
    assert looks(replace(two, loading=1), 4)[0] == Keep("a copy is on its way")
    _, past, now = looks(replace(two, min_copies=2), 1, past, now)
    assert past.surplus_since_s is None


def test_copies_over_the_most_that_the_predictor_allows_go_even_when_busy():
    three = replace(ALONE, rps=DEFAULTS.rps, loaded=3, rank=2, max_copies=2)
    assert isinstance(looks(three, 4)[0], Shrink)


def test_copies_stay_for_a_while_after_the_use_that_they_came_for():
    two = replace(ALONE, loaded=2, rank=1)
    _, past, now = looks(replace(two, rps=DEFAULTS.rps), 2)
    looked = int((DEFAULTS.keep_s - 60) / LOOK_S)
    verdict, past, now = looks(two, looked, past, now)
    assert isinstance(verdict, Keep)
    verdict, past, now = looks(two, int(100 / LOOK_S), past, now)
    assert isinstance(verdict, Shrink)


def test_need_a_little_below_the_number_of_copies_changes_nothing():
    nearly = DEFAULTS.shrink_below * DEFAULTS.rps / 2
    two = replace(ALONE, loaded=2, rank=1)
    assert isinstance(looks(replace(two, rps=1.01 * nearly), 100)[0], Keep)
    assert isinstance(looks(replace(two, rps=0.99 * nearly), 4)[0], Shrink)


def used_again(after_minutes: float, **fields):
    """The verdict of a look with use, so long after the first."""
    used = replace(ALONE, rps=0.2, **fields)
    past, _ = look(born(now=0.0), used, now=0.0)
    return look(past, used, now=after_minutes * MINUTE_S)


def test_model_used_again_after_a_while_gets_a_second_copy_in_free_room():
    assert isinstance(used_again(6)[1], Keep)
    past, verdict = used_again(7)
    assert verdict == Grow(2, "it is used again and again", fill=True)
    assert isinstance(used_again(40)[1], Grow)
    assert isinstance(used_again(41)[1], Keep)
    for fields in ({"loaded": 2}, {"loading": 1}, {"max_copies": 1}, {"fit": 1}, {"rank": 1}):
        assert isinstance(used_again(7, **fields)[1], Keep)
    used = replace(ALONE, rps=0.2)
    past, verdict = look(past, used, now=8 * MINUTE_S)
    assert isinstance(verdict, Keep)  # it was asked for already
    assert isinstance(look(past, used, now=15 * MINUTE_S)[1], Grow)


def test_second_copy_that_came_for_this_stays_until_the_use_is_long_ago():
    two = replace(ALONE, loaded=2, rank=1)
    hours = int(DEFAULTS.again_within_s / LOOK_S)
    verdict, past, now = looks(two, hours - 1, born(now=0.0, again=True))
    assert verdict == Keep("enough")
    assert isinstance(looks(two, 4, past, now)[0], Shrink)


def test_uses_of_days_ago_are_forgotten():
    past, _ = look(born(now=0.0), replace(ALONE, rps=1.0), now=0.0)
    past, _ = look(past, ALONE, now=1e7)
    assert past.used == 0


@dataclass
class Model:
    """All holders of one model, in rendezvous order, each with its own past."""

    rps: float
    in_flight: float
    fit: int
    min_copies: int = 0
    max_copies: int = 0
    now: float = 1000.0
    pasts: list[Past] = field(default_factory=list)

    def step(self) -> list[Verdict]:
        """One look of each; what they decide is done by the next."""
        self.now += LOOK_S
        held = len(self.pasts)
        verdicts = []
        for rank, past in enumerate(self.pasts):
            situation = Situation(
                self.rps / held,
                self.in_flight / held,
                loaded=held,
                loading=0,
                rank=rank,
                fit=self.fit,
                min_copies=self.min_copies,
                max_copies=self.max_copies,
            )
            self.pasts[rank], verdict = look(past, situation, now=self.now)
            verdicts.append(verdict)
        assert sum(not isinstance(verdict, Keep) for verdict in verdicts) <= 1
        match next((v for v in verdicts if not isinstance(v, Keep)), None):
            case Grow(to=to, fill=fill):
                assert held < to <= self.fit
                self.pasts += [born(now=self.now, again=fill)] * (to - held)
            case Shrink():
                self.pasts.pop()
        return verdicts


# The last change comes when a use is long enough ago to have come again.
SETTLED = int((DEFAULTS.again_after_s + MINUTE_S) / LOOK_S)

models = st.builds(
    Model,
    rps=st.floats(0, 20 * DEFAULTS.rps),
    in_flight=st.floats(0, 20 * DEFAULTS.in_flight),
    fit=st.integers(1, 12),
    min_copies=st.integers(0, 4),
    max_copies=st.integers(0, 6),
)


@settings(max_examples=40)
@given(models, st.integers(1, 12))
def test_copies_come_to_rest_under_a_constant_load_within_their_bounds(model, copies):
    model.pasts = [born(now=model.now)] * copies
    lowest = copies
    for _ in range(SETTLED):
        model.step()
        lowest = min(lowest, len(model.pasts))
    at_rest = len(model.pasts)
    for _ in range(20):
        model.step()
        assert len(model.pasts) == at_rest
    least = max(1, model.min_copies)
    most = max(least, model.max_copies or model.fit)
    wanted = max(
        ceil(round(model.rps / DEFAULTS.rps, 6)),
        ceil(round(model.in_flight / DEFAULTS.in_flight, 6)),
        least,
    )
    assert at_rest >= min(wanted, most, model.fit)
    assert at_rest <= max(most, 1)
    assert lowest >= min(copies, least)


@given(models, st.lists(st.floats(0, 10 * DEFAULTS.rps), max_size=30), st.integers(1, 6))
def test_copies_stay_within_their_bounds_whatever_the_load(model, rates, copies):
    model.pasts = [born(now=model.now)] * copies
    least = max(1, model.min_copies)
    most = max(least, model.max_copies or model.fit)
    for model.rps in rates:
        before = len(model.pasts)
        model.step()
        after = len(model.pasts)
        assert after >= min(before, least)
        assert after <= max(before, most)
        if before >= least:
            assert after - before <= max(1, model.fit // 2)


@given(st.integers(2, 8))
def test_copies_that_nothing_justifies_are_gone_soon(copies):
    """The first one within half a minute, and one with every look after it."""
    model = Model(rps=1.0, in_flight=0.0, fit=12, pasts=[born(now=1000.0)] * copies)
    counts = []
    for _ in range(int(30 / LOOK_S) + copies):
        model.step()
        counts.append(len(model.pasts))
    assert counts[int(30 / LOOK_S) - 1] < copies
    assert counts[-1] == 1
