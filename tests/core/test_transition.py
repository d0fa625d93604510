"""Transitions: the steps one by one, then any order of events against a store that keeps score."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.core import transition
from mesh.core.ids import ModelId
from mesh.core.transition import Applied, Discard, ModelLoaded, Register, Removed, Retry
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


APPLICATIONS = st.sampled_from("abcd").map(lambda path: Applied(spec("p", path)))
LOADS = st.sampled_from("abcd").map(lambda path: ModelLoaded(model_of("p", path).id))
EVENTS = st.one_of(APPLICATIONS, LOADS, st.just(Removed()))


class Store:
    """Carries out what steps ask for, and holds each of them to it."""

    def __init__(self):
        self.state = None
        self.models: dict[ModelId, object] = {}
        self.loaded: set[ModelId] = set()

    def send(self, event):
        before = self.state
        self.state, effects = transition.step(before, event, now=1.0)
        for effect in effects:
            match effect:
                case Register(model=model):
                    assert model.id not in self.models
                    self.models[model.id] = model
                case Discard(model=model):
                    del self.models[model]
                    self.loaded.discard(model)
                case Retry(model=model):
                    assert model in self.models
        if isinstance(event, ModelLoaded) and event.model in self.models:
            self.loaded.add(event.model)
        self.check(before)

    def check(self, before):
        if self.state is None:
            assert not self.models
            return
        assert self.models.keys() == {self.state.active, self.state.target}
        if self.state.served:
            assert self.state.active in self.loaded
        else:
            assert self.state.active == self.state.target
        if before is not None:
            assert self.state.served >= before.served
            assert self.state.generation >= before.generation
            assert self.state.created_s == before.created_s


@given(st.lists(EVENTS, max_size=30))
def test_served_predictor_stays_resolvable_through_any_order_of_events(events):
    store = Store()
    for event in events:
        store.send(event)


@given(st.lists(EVENTS, max_size=12), EVENTS)
def test_event_that_comes_twice_changes_nothing_more(events, last):
    once, _ = stepped(*events, last)
    twice, effects = transition.step(once, last, now=9.0)
    assert twice == once
    assert all(isinstance(effect, Retry) for effect in effects)


@given(st.lists(EVENTS, max_size=12), LOADS)
def test_load_of_a_model_that_nobody_refers_to_changes_nothing(events, loaded):
    state, _ = stepped(*events)
    after, effects = transition.step(state, loaded, now=9.0)
    if state is None or loaded.model not in models(state):
        assert after is state
        assert effects == ()


@given(st.lists(EVENTS, max_size=12), APPLICATIONS)
def test_predictor_rests_once_its_target_is_loaded(events, wanted):
    state, _ = stepped(*events, wanted)
    assert state.target == f"p-{wanted.spec.hash}"
    after, _ = transition.step(state, ModelLoaded(state.target), now=9.0)
    assert models(after) == (state.target, state.target)
    assert after.served


@given(st.lists(APPLICATIONS, max_size=12))
def test_blocked_predictor_keeps_its_active_model(changes):
    state, _ = stepped(TO_A, ModelLoaded(A.id), *changes)
    assert state.active == A.id
