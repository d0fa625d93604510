"""Leases of the memory store: which key hangs on which lease, and when each runs out. No clock."""

from dataclasses import dataclass, field
from math import inf

from mesh.registry.port import LeaseId, LeaseLost


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    deadline_s: float
    keys: set[str] = field(default_factory=set)


class Leases:
    """All leases that have not ended; one that is overdue lives until `end` is called for it.

    Ids begin after `epoch`.
    """

    def __init__(self, *, epoch: int = 0) -> None:
        self._granted = epoch
        self._leases: dict[LeaseId, _Lease] = {}
        self._lease_of: dict[str, LeaseId] = {}

    def grant(self, ttl_s: float, *, now_s: float) -> LeaseId:
        self._granted += 1
        lease = LeaseId(self._granted)
        self._leases[lease] = _Lease(ttl_s, now_s + ttl_s)
        return lease

    def require(self, lease: LeaseId) -> None:
        """Raises LeaseLost where there is no such lease."""
        if lease not in self._leases:
            raise LeaseLost(lease)

    def renew(self, lease: LeaseId, *, now_s: float) -> None:
        """Begins its time anew; raises LeaseLost, also for one that is overdue."""
        self.require(lease)
        held = self._leases[lease]
        if held.deadline_s <= now_s:
            raise LeaseLost(lease)
        held.deadline_s = now_s + held.ttl_s

    def lapse(self, lease: LeaseId) -> None:
        """Makes it overdue at once; nothing where it is gone."""
        if (held := self._leases.get(lease)) is not None:
            held.deadline_s = -inf

    def bind(self, key: str, lease: LeaseId | None) -> None:
        """Hangs the key on this lease, or on none, instead of the one that it hung on."""
        if (before := self._lease_of.pop(key, None)) is not None:
            self._leases[before].keys.discard(key)
        if lease is not None:
            self._lease_of[key] = lease
            self._leases[lease].keys.add(key)

    def end(self, lease: LeaseId) -> tuple[str, ...]:
        """Forgets the lease; the keys that hung on it, sorted, are for the caller to delete."""
        ended = self._leases.pop(lease, None)
        keys = () if ended is None else tuple(sorted(ended.keys))
        for key in keys:
            del self._lease_of[key]
        return keys

    def overdue(self, now_s: float) -> tuple[LeaseId, ...]:
        """The leases whose time is over, the longest overdue first."""
        over = [(held.deadline_s, lease) for lease, held in self._leases.items()]
        return tuple(lease for deadline_s, lease in sorted(over) if deadline_s <= now_s)

    def next_deadline_s(self) -> float | None:
        return min((held.deadline_s for held in self._leases.values()), default=None)
