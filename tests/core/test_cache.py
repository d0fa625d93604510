"""The cache of a node: examples, and a comparison with a model too plain to be wrong."""

from dataclasses import astuple, dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.core.cache import Cache, Evict, Fresher, Full, Granted, TooLarge
from mesh.core.ids import ModelId

A, B, C, D = (ModelId(name) for name in "abcd")
MODELS = [ModelId(name) for name in "abcdef"]
CAPACITY = 100


def cache_of(capacity_bytes: int = CAPACITY, **sizes: int) -> Cache:
    """Entries in the order of their last use."""
    cache = Cache(capacity_bytes)
    for now, (name, size_bytes) in enumerate(sizes.items()):
        assert isinstance(cache.ask(ModelId(name), size_bytes, now=now), Granted)
    return cache


def entry_of(cache: Cache, model: ModelId):
    return next(entry for entry in cache if entry.model == model)


def test_room_that_is_free_is_granted():
    cache = cache_of(a=60)
    answer = cache.ask(B, 40, now=5.0)
    assert isinstance(answer, Granted)
    assert (answer.entry.model, answer.entry.size_bytes, answer.entry.used_s) == (B, 40, 5.0)
    assert (cache.used_bytes, cache.free_bytes) == (100, 0)
    assert A in cache
    assert C not in cache


def test_room_for_a_model_that_has_some_is_a_mistake():
    with pytest.raises(ValueError, match="a has room already"):
        cache_of(a=10).ask(A, 10, now=1.0)


def test_room_beyond_the_capacity_is_too_large():
    assert cache_of().ask(A, 101, now=0.0) == TooLarge(
        "101 bytes are more than the 100 of this node"
    )


def test_room_names_the_least_recently_used_as_victims():
    cache = cache_of(a=40, b=30, c=30)
    entry_of(cache, A).used_s = 9.0
    assert cache.ask(D, 50, now=10.0) == Evict((B, C))


def test_room_for_what_was_used_before_the_others_is_not_made():
    cache = cache_of(a=40, b=30, c=30)  # used at 0, 1 and 2
    assert cache.ask(D, 40, now=9.0, used_s=0.5) == Evict((A,))
    assert cache.ask(D, 50, now=9.0, used_s=0.5) == Fresher("all that could leave was used later")
    assert cache.ask(D, 50, now=9.0, used_s=1.0) == Evict((A, B))
    cache.leave(A)
    assert cache.ask(D, 40, now=9.0, used_s=0.5) == Full("room is being made")


def test_room_that_is_one_byte_short_is_not_granted():
    assert cache_of(a=60).ask(B, 41, now=1.0) == Evict((A,))


def test_room_without_the_right_to_evict_is_refused():
    assert cache_of(a=80).ask(B, 30, now=1.0, may_evict=False) == Full("10 bytes short")


def test_room_that_what_leaves_will_free_waits_for_it():
    cache = cache_of(a=60, b=40)
    cache.leave(A)
    assert cache.ask(C, 50, now=1.0) == Full("room is being made")
    cache.drop(A)
    assert isinstance(cache.ask(C, 50, now=1.0), Granted)


def test_room_that_what_leaves_frees_in_part_evicts_only_the_rest():
    cache = cache_of(a=40, b=40, c=20)
    cache.leave(B)
    assert cache.ask(D, 70, now=1.0) == Evict((A,))


def test_room_that_only_pinned_models_hold_waits():
    cache = cache_of(a=60, b=40)
    entry_of(cache, A).pins = 1
    assert cache.ask(C, 50, now=1.0) == Full("requests wait for everything that could leave")
    entry_of(cache, A).pins = 0
    assert cache.ask(C, 50, now=1.0) == Evict((A,))


def test_room_beside_a_protected_model_that_leaves_too_little_is_too_large():
    answer = cache_of(a=60).ask(B, 50, now=1.0, protected=frozenset({A}))
    assert answer == TooLarge("50 bytes do not fit beside the model that is serving (60 bytes)")


def test_room_beside_a_protected_model_that_others_hold_waits():
    cache = cache_of(a=40, b=30)
    entry_of(cache, B).pins = 1
    answer = cache.ask(C, 50, now=1.0, protected=frozenset({A}))
    assert answer == Full("requests wait for everything that could leave")


def test_room_beside_a_protected_model_that_is_leaving_waits():
    cache = cache_of(a=60, b=40)
    cache.leave(A)
    entry_of(cache, B).pins = 1
    answer = cache.ask(C, 100, now=1.0, protected=frozenset({A}))
    assert answer == Full("requests wait for everything that could leave")


def test_room_that_no_eviction_can_make_costs_nobody_its_place():
    cache = cache_of(a=60, b=10)
    entry_of(cache, A).pins = 1
    cache.resize(A, 130)
    assert cache.ask(C, 10, now=1.0) == Full("requests wait for everything that could leave")


def test_resize_past_the_capacity_names_what_must_leave():
    cache = cache_of(a=30, b=30, c=40)
    cache.resize(C, 90)
    assert cache.used_bytes == 150
    assert cache.free_bytes == 0
    assert cache.excess(C) == (A, B)
    cache.leave(A)
    assert cache.excess(C) == (B,)


def test_resize_that_what_leaves_makes_up_for_names_nobody():
    cache = cache_of(a=30, b=30, c=40)
    cache.leave(A)
    cache.resize(C, 60)
    assert cache.excess(C) == ()


def test_resize_within_the_capacity_names_nobody():
    cache = cache_of(a=30, b=30)
    cache.resize(B, 70)
    assert cache.excess(B) == ()


def test_drop_of_an_unknown_model_changes_nothing():
    cache = cache_of(a=30)
    cache.drop(B)
    assert cache.used_bytes == 30


def test_oldest_use_is_that_of_the_least_recently_used():
    assert cache_of().oldest_use_s() is None
    cache = cache_of(a=30, b=30)
    entry_of(cache, A).used_s = 9.0
    assert cache.oldest_use_s() == 1


def test_newest_use_is_that_of_the_most_recently_used():
    assert cache_of().newest_use_s() is None
    cache = cache_of(a=30, b=30)
    entry_of(cache, A).used_s = 9.0
    assert cache.newest_use_s() == 9.0


@dataclass
class Plain:
    """An entry of the plain model."""

    size_bytes: int
    used_s: float
    pins: int = 0
    is_leaving: bool = False


class CacheMachine(RuleBasedStateMachine):
    """Every answer is compared with one that is computed the long way."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(CAPACITY)
        self.plain: dict[ModelId, Plain] = {}
        self.now = 0

    def evictable(self, kept: frozenset[ModelId]) -> list[ModelId]:
        """What may be evicted, least recently used first."""
        free = [
            model
            for model, entry in self.plain.items()
            if not entry.pins and not entry.is_leaving and model not in kept
        ]
        return sorted(free, key=lambda model: self.plain[model].used_s)

    def bytes_of(self, models) -> int:
        return sum(self.plain[model].size_bytes for model in models)

    @rule(
        model=st.sampled_from(MODELS),
        size_bytes=st.integers(0, 120),
        may_evict=st.booleans(),
        protected=st.frozensets(st.sampled_from(MODELS), max_size=1),
    )
    def ask(self, model, size_bytes, may_evict, protected):
        if model in self.plain:
            return
        self.now += 1
        before = [replace(entry) for entry in self.cache]
        options = {"now": self.now, "may_evict": may_evict, "protected": protected}
        answer = self.cache.ask(model, size_bytes, **options)
        used = self.bytes_of(self.plain)
        if isinstance(answer, Granted):
            assert used + size_bytes <= self.cache.capacity_bytes
            self.plain[model] = Plain(size_bytes, self.now)
            return
        assert [astuple(entry) for entry in before] == [astuple(entry) for entry in self.cache]
        assert size_bytes + used > self.cache.capacity_bytes
        self.check_refusal(answer, size_bytes, may_evict, protected)

    def check_refusal(self, answer, size_bytes, may_evict, protected):
        capacity = self.cache.capacity_bytes
        staying = [model for model, entry in self.plain.items() if not entry.is_leaving]
        short = size_bytes + self.bytes_of(staying) - capacity
        free = self.evictable(protected)
        if size_bytes > capacity:
            assert isinstance(answer, TooLarge)
        elif not may_evict or short <= 0:
            assert isinstance(answer, Full)
        elif self.bytes_of(free) < short:
            bound = self.bytes_of(protected.intersection(staying))
            is_hopeless = bound > 0 and size_bytes + bound > capacity
            assert isinstance(answer, TooLarge if is_hopeless else Full)
        else:
            assert isinstance(answer, Evict)
            self.check_victims(answer.victims, short, free)

    def check_victims(self, victims, short, free):
        """The least recently used, as many as it takes and no more."""
        assert list(victims) == free[: len(victims)]
        assert self.bytes_of(victims) >= min(short, self.bytes_of(free))
        assert self.bytes_of(victims[:-1]) < short

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), size_bytes=st.integers(0, 120))
    def resize(self, data, size_bytes):
        model = data.draw(st.sampled_from(sorted(self.plain)))
        self.cache.resize(model, size_bytes)
        self.plain[model].size_bytes = size_bytes
        staying = [name for name, entry in self.plain.items() if not entry.is_leaving]
        short = self.bytes_of(staying) - self.cache.capacity_bytes
        victims = self.cache.excess(model)
        if short <= 0:
            assert victims == ()
        else:
            self.check_victims(victims, short, self.evictable(frozenset({model})))

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), action=st.sampled_from(["use", "pin", "unpin", "leave"]))
    def change(self, data, action):
        model = data.draw(st.sampled_from(sorted(self.plain)))
        entry, plain = entry_of(self.cache, model), self.plain[model]
        match action:
            case "use":
                self.now += 1
                entry.used_s = plain.used_s = self.now
            case "pin":
                entry.pins = plain.pins = plain.pins + 1
            case "unpin":
                entry.pins = plain.pins = max(0, plain.pins - 1)
            case "leave":
                self.cache.leave(model)
                plain.is_leaving = True

    @rule(model=st.sampled_from(MODELS))
    def drop(self, model):
        self.cache.drop(model)
        self.plain.pop(model, None)

    @rule(capacity_bytes=st.integers(60, 140))
    def set_capacity(self, capacity_bytes):
        self.cache.capacity_bytes = capacity_bytes

    @invariant()
    def equals_the_plain_model(self):
        entries = {
            entry.model: Plain(entry.size_bytes, entry.used_s, entry.pins, entry.is_leaving)
            for entry in self.cache
        }
        assert entries == self.plain
        assert self.cache.used_bytes == self.bytes_of(self.plain)
        assert self.cache.free_bytes == max(0, self.cache.capacity_bytes - self.cache.used_bytes)
        assert all((model in self.cache) == (model in self.plain) for model in MODELS)
        oldest_s = min((entry.used_s for entry in self.plain.values()), default=None)
        assert self.cache.oldest_use_s() == oldest_s


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=30)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans()), max_size=6),
    st.integers(0, 100),
)
def test_room_is_granted_once_the_victims_are_gone(held, size_bytes):
    cache = Cache(CAPACITY)
    for model, (size, is_pinned, is_leaving) in zip(MODELS, held, strict=False):
        answer = cache.ask(model, size, now=0.0)
        if isinstance(answer, Granted):
            answer.entry.pins, answer.entry.is_leaving = int(is_pinned), is_leaving
    wanted = ModelId("wanted")
    answer = cache.ask(wanted, size_bytes, now=1.0)
    if isinstance(answer, Evict):
        for victim in answer.victims:
            cache.leave(victim)
        assert cache.ask(wanted, size_bytes, now=1.0) == Full("room is being made")
        for entry in list(cache):
            if entry.is_leaving:
                cache.drop(entry.model)
        assert isinstance(cache.ask(wanted, size_bytes, now=1.0), Granted)
