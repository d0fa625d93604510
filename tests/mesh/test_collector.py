"""Objects that live long are not walked over again and again; those of the interpreter itself."""

import gc

from mesh.ops.collector import sparing


class Clock:
    """Each full round of the collector takes `round_s`."""

    def __init__(self) -> None:
        self.round_s = 0.0
        self._now = 0.0

    def __call__(self) -> float:
        self._now += self.round_s
        return self._now


def frozen_by(*, round_s: float, generation: int) -> bool:
    """Whether objects made after the start are kept for good once a round has seen them."""
    clock = Clock()
    with sparing(0.02, clock):
        kept = [[] for _ in range(1000)]
        before, clock.round_s = gc.get_freeze_count(), round_s
        gc.collect(generation)
        return gc.get_freeze_count() - before >= len(kept)


def test_what_is_there_at_the_start_is_kept_for_good():
    kept = [[] for _ in range(1000)]
    with sparing():
        assert gc.get_freeze_count() > len(kept)
        assert not any(one is kept for one in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


def test_what_a_long_round_has_left_is_kept_for_good():
    assert frozen_by(round_s=0.02, generation=2)


def test_a_short_round_or_one_that_is_not_full_keeps_nothing():
    assert not frozen_by(round_s=0.019, generation=2)
    assert not frozen_by(round_s=0.02, generation=1)


def test_nothing_is_left_in_the_process_afterwards():
    before = list(gc.callbacks)
    with sparing():
        assert gc.callbacks != before
    assert gc.callbacks == before
