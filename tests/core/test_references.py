"""Who refers to a model: in any order of referring and letting go, against a set."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ids import PredictorName
from mesh.core.references import NOBODY, is_same, referred, referrers, released
from tests.support.builders import model_of, source

MODEL = model_of("p")
FREE = replace(MODEL, predictor=NOBODY)
NAMES = st.sampled_from("pqr").map(PredictorName)


def test_model_goes_with_its_last_referrer():
    both = referred(MODEL, PredictorName("q"))
    assert referrers(both) == {"p", "q"}
    left = released(both, PredictorName("p"))
    assert left is not None
    assert (left.predictor, left.also) == ("q", ())
    assert released(left, PredictorName("q")) is None


def test_model_that_is_to_stay_stays_without_a_referrer():
    left = released(replace(MODEL, auto_delete=False), PredictorName("p"))
    assert left is not None
    assert (left.predictor, referrers(left)) == (NOBODY, frozenset())


@given(st.booleans(), st.lists(st.tuples(st.booleans(), NAMES), max_size=20))
def test_names_are_a_set_whatever_the_order(auto_delete, moves):
    model, names = replace(FREE, auto_delete=auto_delete), set()
    for is_in, name in moves:
        if is_in:
            names.add(name)
            model = referred(model, name)
        else:
            names.discard(name)
            after = released(model, name)
            assert (after is None) == (not names and auto_delete)
            if after is None:
                return
            model = after
        assert referrers(model) == names
        assert len(names) == len(model.also) + bool(model.predictor)


@given(st.booleans(), NAMES)
def test_the_first_stays_the_first_and_equal_names_give_equal_models(is_first, name):
    first = PredictorName("p")
    model = referred(referred(FREE, first), PredictorName("q"))
    after = referred(model, name) if is_first else model
    assert after.predictor == first


def test_same_is_what_says_the_same_and_a_key_counts_where_both_have_one():
    one = source("a")
    keyed, other = replace(one, key="{}"), replace(one, key="{ }")
    assert is_same(one, one)
    assert is_same(one, keyed)
    assert is_same(keyed, one)
    assert not is_same(keyed, other)
    assert not is_same(one, source("b"))
