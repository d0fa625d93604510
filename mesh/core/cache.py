"""What a node's runtime memory holds: a weighted LRU cache with pins.

Theory. Every model that takes memory has an entry, from the moment that room is given to its load
until the runtime has let go of it. `used_bytes` is the sum over all entries, so room is given out
only when it is there. An entry that is *leaving* still takes room and is no victim any more; one
that is *pinned* (requests wait for it) is never a victim. Asking for room changes nothing unless it
is granted. A model may turn out larger than was asked for: `resize` records that fact, and `excess`
names what must leave to make up for it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from mesh.core.ids import ModelId


@dataclass(slots=True, eq=False)
class Entry:
    """One model's share. The data plane sets `used_s` at each request; seconds of a clock that only
    goes forward."""

    model: ModelId
    size_bytes: int
    used_s: float
    pins: int = 0
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """The room is given; `entry` holds it."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Evict:
    """Room can be made: these must leave first, least recently used first."""

    victims: tuple[ModelId, ...]


@dataclass(frozen=True, slots=True)
class Full:
    """No room now; it may come, when something leaves or is no longer waited for."""

    reason: str


@dataclass(frozen=True, slots=True)
class TooLarge:
    """There will never be room while the capacity, or what must stay, is what it is."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fresher:
    """No room for a model that was not used lately: the others are in better use."""

    reason: str


Admission = Granted | Evict | Full | TooLarge | Fresher


@dataclass(slots=True)
class Cache:
    """The entries of one node. Sizes are bytes."""

    capacity_bytes: int = 0
    _entries: dict[ModelId, Entry] = field(default_factory=dict)
    _used_bytes: int = 0

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    @property
    def free_bytes(self) -> int:
        return max(0, self.capacity_bytes - self._used_bytes)

    def __contains__(self, model: ModelId) -> bool:
        return model in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def oldest_use_s(self) -> float | None:
        """When the least recently used entry was used; None where there is none."""
        return min((entry.used_s for entry in self._entries.values()), default=None)

    def newest_use_s(self) -> float | None:
        """When the most recently used entry was used; None where there is none."""
        return max((entry.used_s for entry in self._entries.values()), default=None)

    def ask(
        self,
        model: ModelId,
        size_bytes: int,
        *,
        now: float,
        may_evict: bool = True,
        protected: frozenset[ModelId] = frozenset(),
        used_s: float = math.inf,
    ) -> Admission:
        """Room for a model that has none yet, last used at `used_s`.

        Those in `protected` are not evicted for it, nor those that were used after it.
        """
        if size_bytes > self.capacity_bytes:
            reason = f"{size_bytes} bytes are more than the {self.capacity_bytes} of this node"
            return TooLarge(reason)
        missing = size_bytes + self._used_bytes - self.capacity_bytes
        if missing <= 0:
            return Granted(self._add(model, size_bytes, now))
        if not may_evict:
            return Full(f"{missing} bytes short")
        return self._make_room(size_bytes, missing, protected, used_s)

    def excess(self, keep: ModelId) -> tuple[ModelId, ...]:
        """What must leave because `keep` grew past the room that there was; may not suffice."""
        missing = self._used_bytes - self._leaving_bytes() - self.capacity_bytes
        victims, _ = self._victims(missing, frozenset({keep}))
        return victims

    def resize(self, model: ModelId, size_bytes: int) -> None:
        """Records what a model really takes, which may pass the capacity."""
        entry = self._entries[model]
        self._used_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes

    def leave(self, model: ModelId) -> None:
        """The model is on its way out; its room is not free yet."""
        self._entries[model].is_leaving = True

    def drop(self, model: ModelId) -> None:
        """The runtime has let go of the model. Of an unknown one, nothing."""
        entry = self._entries.pop(model, None)
        if entry is not None:
            self._used_bytes -= entry.size_bytes

    def _add(self, model: ModelId, size_bytes: int, now: float) -> Entry:
        if model in self._entries:
            raise ValueError(f"{model} has room already")
        entry = Entry(model, size_bytes, now)
        self._entries[model] = entry
        self._used_bytes += size_bytes
        return entry

    def _make_room(
        self, size_bytes: int, missing: int, protected: frozenset[ModelId], used_s: float
    ) -> Admission:
        coming = self._leaving_bytes()
        if coming >= missing:
            return Full("room is being made")
        victims, found = self._victims(missing - coming, protected, used_s)
        if coming + found >= missing:
            return Evict(victims)
        bound = sum(
            entry.size_bytes
            for entry in self._entries.values()
            if entry.model in protected and not entry.is_leaving
        )
        if bound and size_bytes > self.capacity_bytes - bound:
            reason = (
                f"{size_bytes} bytes do not fit beside the model that is serving ({bound} bytes)"
            )
            return TooLarge(reason)
        if used_s < math.inf:
            return Fresher("all that could leave was used later")
        return Full("requests wait for everything that could leave")

    def _leaving_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self._entries.values() if entry.is_leaving)

    def _victims(
        self, missing: int, protected: frozenset[ModelId], used_s: float = math.inf
    ) -> tuple[tuple[ModelId, ...], int]:
        """The least recently used that together make up for `missing` bytes, and what they hold."""
        victims: list[ModelId] = []
        found = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.used_s):
            if found >= missing or entry.used_s > used_s:
                break
            if entry.pins or entry.is_leaving or entry.model in protected:
                continue
            victims.append(entry.model)
            found += entry.size_bytes
        return tuple(victims), found
