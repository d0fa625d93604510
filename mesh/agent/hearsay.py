"""What peers say of copies of their own, believed until the store could have said it, too."""

from collections.abc import Callable
from typing import Any

from mesh.core.ids import PredictorName
from mesh.core.records import CopyRecord
from mesh.core.view import View
from mesh.ops.clock import Clock
from mesh.registry.follow import Follower
from mesh.wire import records

# Within this a node that has a lease has announced its copy.
CONFIRMED_S = 5.0


class Hearsay:
    """`touch` is called with the Predictors that something which is put or dropped concerns."""

    def __init__(
        self,
        view: View,
        follower: Follower[Any],
        clock: Clock,
        touch: Callable[[frozenset[PredictorName]], None],
    ) -> None:
        self._view = view
        self._follower = follower
        self._clock = clock
        self._touch = touch
        self._said: dict[str, CopyRecord] = {}
        self._current_s: float | None = None

    def take(self, record: CopyRecord) -> None:
        """A peer says this; the store will say the same, if it can."""
        known = self._view.copies(record.model).get(record.node)
        is_news = known is None or known.since_s <= record.since_s
        if record.model in self._view.models and is_news:
            self._said[records.copy_key(record.model, record.node)] = record
            self._touch(self._view.put(record))

    def tick(self) -> None:
        """Drops what the store has not confirmed in time; called about once a second."""
        now = self._clock.monotonic_s()
        if not self._follower.is_current:
            self._current_s = None
        elif self._current_s is None:
            self._current_s = now
        elif now - self._current_s >= CONFIRMED_S:
            self._drop_unconfirmed()

    def _drop_unconfirmed(self) -> None:
        for key, record in list(self._said.items()):
            if self._clock.wall_s() - record.since_s < CONFIRMED_S:
                continue
            del self._said[key]
            is_as_said = self._view.copies(record.model).get(record.node) is record
            if is_as_said and not self._follower.knows(key):
                self._touch(self._view.drop_copy(record.model, record.node))
