"""What this node says of itself: its state at once, its figures once a second where they moved."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mesh.agent.announce import Announcer
from mesh.agent.copy import Copy
from mesh.agent.room import Room
from mesh.core.records import NodeRecord, NodeState
from mesh.core.view import View
from mesh.ops.clock import Clock
from mesh.wire import records

# Figures are for placement, which compares nodes roughly: what moved less is not written.
RPS_STEP = 0.2
USE_STEP_S = 10.0
RPS_WINDOW_S = 30.0
LOOK_S = 0.1


@dataclass(slots=True)
class _Rate:
    """Requests a second, smoothed over the window."""

    uses: int = 0
    rps: float = 0.0

    def take(self, uses: int, over_s: float) -> float:
        share = min(1.0, over_s / RPS_WINDOW_S)
        self.rps += share * ((uses - self.uses) / over_s - self.rps)
        self.uses = uses
        return self.rps


class Standing:
    """The record of this node; `on_state` is called when its state changed."""

    def __init__(
        self,
        record: NodeRecord,
        view: View,
        announcer: Announcer,
        clock: Clock,
        on_state: Callable[[], None],
    ) -> None:
        self._view = view
        self._announcer = announcer
        self._clock = clock
        self._on_state = on_state
        self._rate = _Rate()
        self._ended_uses = 0
        self._looked_s = clock.monotonic_s()
        self.record = record
        self._put(record)

    @property
    def state(self) -> NodeState:
        return self.record.state

    def set_state(self, state: NodeState) -> None:
        """A node that drains has made up its mind."""
        if state is not self.state and self.state is not NodeState.DRAINING:
            self._put(replace(self.record, state=state))
            self._on_state()

    def set_capacity(self, capacity_bytes: int) -> None:
        self._put(replace(self.record, capacity_bytes=capacity_bytes))

    def ended(self, copy: Copy) -> None:
        """The copy is gone; its requests still count."""
        self._ended_uses += copy.uses

    @property
    def is_due(self) -> bool:
        """Whether the last look is so long ago that a move of a copy is worth another one."""
        return self._clock.monotonic_s() - self._looked_s >= LOOK_S

    def look(self, copies: Iterable[Copy], room: Room) -> None:
        """Takes the figures, and announces them where they moved."""
        now = self._clock.monotonic_s()
        uses = self._ended_uses + sum(copy.uses for copy in copies)
        rps = self._rate.take(uses, max(now - self._looked_s, 0.001))
        self._looked_s = now
        oldest_s = room.cache.oldest_use_s()
        after = replace(
            self.record,
            used_bytes=room.cache.used_bytes,
            loading=self._view.loading(self.record.id),
            rps=round(rps, 1),
            oldest_use_s=self._wall_s(oldest_s, now),
            newest_use_s=max(
                self.record.newest_use_s, self._wall_s(room.cache.newest_use_s(), now)
            ),
        )
        if _has_moved(self.record, after):
            self._put(after)

    def _wall_s(self, used_s: float | None, now: float) -> float:
        return 0.0 if used_s is None else round(self._clock.wall_s() - now + used_s)

    def _put(self, record: NodeRecord) -> None:
        self.record = record
        self._view.put(record)
        self._announcer.put(records.node_key(record.id), records.encode(record))


def _has_moved(before: NodeRecord, after: NodeRecord) -> bool:
    return (
        before.used_bytes != after.used_bytes
        or before.loading != after.loading
        or abs(after.rps - before.rps) > max(0.5, RPS_STEP * before.rps)
        or abs(after.oldest_use_s - before.oldest_use_s) > USE_STEP_S
        or after.newest_use_s - before.newest_use_s > USE_STEP_S
    )
