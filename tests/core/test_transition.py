"""Transitions: the steps one by one, then any order of events against a store that keeps score."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import transition
from mesh.core.errors import AlreadyExists, ModelNotFound, NotAsExpected
from mesh.core.ids import ModelId, PredictorName
from mesh.core.records import BackingModel
from mesh.core.references import NOBODY, referred, referrers, released
from mesh.core.transition import (
    Applied,
    Discard,
    ModelLoaded,
    Refer,
    Register,
    Removed,
    Retargeted,
    Retry,
)
from tests.support.builders import model_of, spec

A, B, C = (model_of("p", path) for path in "abc")
TO_A, TO_B, TO_C = (Applied(spec("p", path)) for path in "abc")


def stepped(*events):
    """The Predictor after these events, and the effects of the last."""
    state, effects = None, ()
    for event in events:
        state, effects = transition.step(state, event, now=5.0)
    return state, effects


def models(state):
    return state.active, state.target


def test_creation_registers_its_model_and_is_at_rest():
    state, effects = stepped(TO_A)
    assert models(state) == (A.id, A.id)
    assert effects == (Register(A),)
    assert (state.created_s, state.generation, state.served) == (5.0, 1, False)
    assert state.spec == TO_A.spec.canonical


def test_changed_spec_of_a_model_never_loaded_replaces_it_at_once():
    state, effects = stepped(TO_A, TO_B)
    assert models(state) == (B.id, B.id)
    assert effects == (Register(B), Discard(A.id))
    assert state.generation == 2


def test_changed_spec_of_a_served_model_is_a_target():
    state, effects = stepped(TO_A, ModelLoaded(A.id), TO_B)
    assert models(state) == (A.id, B.id)
    assert effects == (Register(B),)


def test_target_that_is_loaded_becomes_active_and_the_old_model_goes():
    state, effects = stepped(TO_A, ModelLoaded(A.id), TO_B, ModelLoaded(B.id))
    assert models(state) == (B.id, B.id)
    assert effects == (Discard(A.id),)
    assert state.served


def test_second_change_on_the_way_gives_up_the_first():
    state, effects = stepped(TO_A, ModelLoaded(A.id), TO_B, TO_C)
    assert models(state) == (A.id, C.id)
    assert effects == (Register(C), Discard(B.id))


def test_spec_that_goes_back_to_the_active_model_ends_the_transition():
    state, effects = stepped(TO_A, ModelLoaded(A.id), TO_B, TO_A)
    assert models(state) == (A.id, A.id)
    assert effects == (Retry(A.id), Discard(B.id))


def test_same_spec_again_changes_nothing_and_asks_to_retry():
    before, _ = stepped(TO_A)
    after, effects = transition.step(before, TO_A, now=9.0)
    assert after is before
    assert effects == (Retry(A.id),)


def test_changed_count_keeps_the_model_and_shows_the_new_spec():
    before, _ = stepped(TO_A, ModelLoaded(A.id))
    counted = spec("p", "a")
    counted = type(counted)(counted.name, '{"minCopies":2}', counted.hash, counted.source)
    after, effects = transition.step(before, Applied(counted), now=9.0)
    assert models(after) == (A.id, A.id)
    assert (after.spec, after.generation) == ('{"minCopies":2}', 2)
    assert effects == (Retry(A.id),)


def test_removal_discards_both_models():
    state, effects = stepped(TO_A, ModelLoaded(A.id), TO_B, Removed())
    assert state is None
    assert effects == (Discard(A.id), Discard(B.id))


def test_removal_of_what_does_not_exist_changes_nothing():
    assert stepped(Removed()) == (None, ())
    assert stepped(ModelLoaded(A.id)) == (None, ())


def test_active_model_that_is_loaded_again_ends_no_transition():
    before, _ = stepped(TO_A, ModelLoaded(A.id), TO_B)
    assert transition.step(before, ModelLoaded(A.id), now=9.0) == (before, ())


# A name that is pointed at models with ids of their own.

X, Y = (
    replace(model_of("other", path), id=ModelId(path), predictor=NOBODY, also=()) for path in "xy"
)


def to(model=X, **fields):
    return Retargeted(PredictorName("p"), model, **fields)


LOADED_X, LOADED_Y = ModelLoaded(X.id), ModelLoaded(Y.id)


def test_new_name_is_at_rest_on_a_model_that_is_there_or_created_along_the_way():
    state, effects = stepped(to(X, owner="me"))
    assert effects == (Refer(X.id),)
    assert (models(state), state.spec, state.owner) == ((X.id, X.id), X.spec, "me")
    assert (state.created_s, state.generation, state.served) == (5.0, 1, False)
    assert stepped(to(X, is_new=True, expected=X.id))[1] == (Register(X),)


def test_retarget_of_a_served_name_waits_for_its_target():
    state, effects = stepped(to(X), LOADED_X, to(Y, is_new=True))
    assert (models(state), state.spec, state.generation) == ((X.id, Y.id), Y.spec, 2)
    assert effects == (Register(Y),)
    state, effects = stepped(to(X), LOADED_X, to(Y), LOADED_Y)
    assert models(state) == (Y.id, Y.id)
    assert effects == (Discard(X.id),)


@pytest.mark.parametrize("how", ["is_forced", "is_idle"])
def test_retarget_by_force_or_of_an_idle_name_is_at_once(how):
    state, effects = stepped(to(X), LOADED_X, to(Y, **{how: True}))
    assert (models(state), state.served) == ((Y.id, Y.id), False)
    assert effects == (Refer(Y.id), Discard(X.id))


def test_retarget_of_a_name_that_was_never_served_is_at_once():
    assert models(stepped(to(X), to(Y))[0]) == (Y.id, Y.id)


def test_force_ends_a_transition_that_is_under_way():
    state, effects = stepped(to(X), LOADED_X, to(Y), to(Y, is_forced=True))
    assert (models(state), state.generation) == ((Y.id, Y.id), 2)
    assert effects == (Retry(Y.id), Discard(X.id))


def test_retarget_back_to_the_active_model_ends_the_transition():
    state, effects = stepped(to(X), LOADED_X, to(Y), to(X, is_forced=True, is_idle=True))
    assert (models(state), state.served) == ((X.id, X.id), True)
    assert effects == (Retry(X.id), Discard(Y.id))


@pytest.mark.parametrize("fields", [{}, {"is_forced": True}, {"is_idle": True}])
def test_same_target_again_changes_nothing_and_asks_to_retry(fields):
    before, _ = stepped(to(X), LOADED_X)
    after, effects = transition.step(before, to(X, **fields), now=9.0)
    assert after is before
    assert effects == (Retry(X.id),)


def test_owner_must_match_once_it_is_set_and_none_need_be_given():
    owned = (to(X, owner="me"), LOADED_X)
    for owner in ("", "me"):
        assert models(stepped(*owned, to(Y, owner=owner))[0]) == (X.id, Y.id)
    with pytest.raises(AlreadyExists, match=r"^predictor 'p' belongs to 'me'$"):
        stepped(*owned, to(Y, owner="you", expected="wrong"))
    with pytest.raises(AlreadyExists, match=r"^predictor 'p' belongs to 'nobody'$"):
        stepped(to(X), to(X, owner="you"))


def test_spec_belongs_to_whoever_created_it_and_others_are_refused():
    state, _ = stepped(Applied(spec("p", "a"), "me"))
    assert state is not None
    assert state.owner == "me"
    for owner in ("", "me"):
        changed, _ = transition.step(state, Applied(spec("p", "b"), owner), now=9.0)
        assert (models(changed), changed.owner) == ((B.id, B.id), "me")
    with pytest.raises(AlreadyExists, match=r"^predictor 'p' belongs to 'me'$"):
        transition.step(state, Applied(spec("p", "a"), "you"), now=9.0)
    with pytest.raises(AlreadyExists, match=r"^predictor 'p' belongs to 'nobody'$"):
        stepped(TO_A, Applied(spec("p", "a"), "me"))


def test_expected_target_must_be_the_one_that_there_is():
    assert models(stepped(to(X), to(Y, expected=X.id))[0]) == (Y.id, Y.id)
    assert models(stepped(to(Y), to(Y, expected=X.id))[0]) == (Y.id, Y.id)
    with pytest.raises(NotAsExpected, match=r"^the target of predictor 'p' is 'x', not 'z'$"):
        stepped(to(X), to(Y, expected="z"))
    with pytest.raises(NotAsExpected, match=r"^predictor 'p' does not exist, so it has no target$"):
        stepped(to(Y, expected=X.id))


def test_update_needs_a_name_that_exists():
    assert models(stepped(to(X), to(Y, is_update=True))[0]) == (Y.id, Y.id)
    with pytest.raises(ModelNotFound, match=r"^predictor 'p' not found$"):
        stepped(to(X, is_update=True, expected="z"))


def test_removal_by_another_owner_changes_nothing():
    before, _ = stepped(to(X, owner="me"))
    assert transition.step(before, Removed("you"), now=9.0) == (before, ())
    for owner in ("", "me"):
        assert transition.step(before, Removed(owner), now=9.0) == (None, (Discard(X.id),))


def test_spec_and_retarget_take_turns():
    state, effects = stepped(TO_A, ModelLoaded(A.id), to(X), LOADED_X)
    assert (models(state), effects) == ((X.id, X.id), (Discard(A.id),))
    state, effects = stepped(TO_A, ModelLoaded(A.id), to(X), LOADED_X, TO_B)
    assert (models(state), effects) == ((X.id, B.id), (Register(B),))


def test_spec_of_a_model_with_an_id_of_its_own_applied_again_keeps_that_model():
    like_a = replace(X, spec=A.spec)
    before, _ = stepped(to(like_a))
    assert transition.step(before, TO_A, now=9.0) == (before, (Retry(X.id),))


APPLICATIONS = st.sampled_from("abcd").map(lambda path: Applied(spec("p", path)))
RETARGETS = st.builds(
    Retargeted,
    st.just(PredictorName("p")),
    st.sampled_from([X, Y, A]),
    is_new=st.booleans(),
    owner=st.sampled_from(["", "", "me"]),
    expected=st.sampled_from(["", "", X.id]),
    is_update=st.booleans(),
    is_forced=st.booleans(),
    is_idle=st.booleans(),
)
LOADS = st.one_of(
    st.sampled_from("abcd").map(lambda path: ModelLoaded(model_of("p", path).id)),
    st.sampled_from([LOADED_X, LOADED_Y]),
)
REMOVALS = st.sampled_from([Removed(), Removed("me"), Removed("you")])
EVENTS = st.one_of(APPLICATIONS, RETARGETS, LOADS, REMOVALS)
REFUSALS = (ModelNotFound, AlreadyExists, NotAsExpected)


def ordered(events):
    """The Predictor after these events, those that are refused left out."""
    state = None
    for event in events:
        with suppress(*REFUSALS):
            state, _ = transition.step(state, event, now=5.0)
    return state


class Store:
    """Carries out what steps ask for, and holds each of them to it.

    X and Y are registered and stay; A goes when it is not referred to, as specs' models do.
    """

    def __init__(self):
        self.state = None
        self.models: dict[ModelId, BackingModel] = {
            model.id: replace(model, auto_delete=False) for model in (X, Y)
        }
        self.loaded: set[ModelId] = set()

    def send(self, event):
        before = self.state
        try:
            self.state, effects = transition.step(before, event, now=1.0)
        except REFUSALS:
            assert isinstance(event, Retargeted)
            return
        if any(isinstance(effect, Refer) and effect.model not in self.models for effect in effects):
            self.state = before  # the commit is refused
            return
        for effect in effects:
            self.carry_out(effect)
        if isinstance(event, ModelLoaded) and event.model in self.models:
            self.loaded.add(event.model)
        self.check(before, event)

    def carry_out(self, effect):
        name = PredictorName("p")
        match effect:
            case Register(model=model):
                self.models[model.id] = referred(self.models.get(model.id, model), name)
            case Refer(model=model):
                self.models[model] = referred(self.models[model], name)
            case Discard(model=model):
                left = released(self.models.pop(model), name)
                if left is not None:
                    self.models[model] = left
                else:
                    self.loaded.discard(model)
            case Retry(model=model):
                assert model in self.models

    def check(self, before, event):
        kept = {model.id for model in self.models.values() if referrers(model)}
        if self.state is None:
            assert not kept
            return
        assert kept == {self.state.active, self.state.target}
        assert self.models.keys() == kept | {X.id, Y.id}
        if self.state.served:
            assert self.state.active in self.loaded
        else:
            assert self.state.active == self.state.target
        if before is not None:
            is_at_once = isinstance(event, Retargeted) and (event.is_forced or event.is_idle)
            assert is_at_once or self.state.served >= before.served
            assert self.state.generation >= before.generation
            assert self.state.created_s == before.created_s
            assert self.state.owner == before.owner


@given(st.lists(EVENTS, max_size=30))
def test_served_predictor_stays_resolvable_through_any_order_of_events(events):
    store = Store()
    for event in events:
        store.send(event)


@given(st.lists(EVENTS, max_size=12), EVENTS)
def test_event_that_comes_twice_changes_nothing_more(events, last):
    try:
        once, _ = transition.step(ordered(events), last, now=5.0)
        twice, effects = transition.step(once, last, now=9.0)
    except REFUSALS:
        return
    assert twice == once
    assert all(isinstance(effect, Retry) for effect in effects)


@given(st.lists(EVENTS, max_size=12), LOADS)
def test_load_of_a_model_that_nobody_refers_to_changes_nothing(events, loaded):
    state = ordered(events)
    after, effects = transition.step(state, loaded, now=9.0)
    if state is None or loaded.model not in models(state):
        assert after is state
        assert effects == ()


@given(st.lists(EVENTS, max_size=12), APPLICATIONS)
def test_predictor_rests_once_its_target_is_loaded(events, wanted):
    before = ordered(events)
    state, _ = transition.step(before, wanted, now=9.0)
    if before is None or before.spec != wanted.spec.canonical:
        assert state.target == f"p-{wanted.spec.hash}"
    after, _ = transition.step(state, ModelLoaded(state.target), now=9.0)
    assert models(after) == (state.target, state.target)
    assert after.served


@given(st.lists(APPLICATIONS | RETARGETS.filter(lambda e: not (e.is_forced or e.is_idle))))
def test_blocked_predictor_keeps_its_active_model(changes):
    state = ordered([TO_A, ModelLoaded(A.id), *changes])
    assert state.active == A.id
