"""The copies of this node: starts them, does for them what takes a runtime, keeps the accounts.

Each move of a copy is followed, without an await, by its room in the cache and then its record in
the view and in the store.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mesh.agent.announce import Announcer
from mesh.agent.calls import Gate
from mesh.agent.claims import Claims
from mesh.agent.copy import Copy, NotWanted, Purpose
from mesh.agent.room import Room
from mesh.core import copies as life
from mesh.core.errors import ModelLoadFailed
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.policy import DEFAULT, Policy
from mesh.core.records import CopyRecord
from mesh.core.spec import RuntimeSpec
from mesh.core.view import View
from mesh.ops import metrics
from mesh.ops.clock import Clock
from mesh.ops.tasks import Tasks
from mesh.runtime.port import Runtime
from mesh.wire import records

log = logging.getLogger(__name__)

DEFAULT_LOAD_TIMEOUT_S = 90.0
ENDS_OF_A_LOAD = (life.Loaded, life.Unloading, life.Failed, life.Gone)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is; without a runtime it only routes.

    `address` is where its peers reach it; empty: it is alone. `drain_limit_s` bounds how long
    requests in flight hold up an unload, `patience_s` how long requests wait for a runtime that is
    away. `policy` is the same on all nodes, if they are to agree.
    """

    id: NodeId
    runtime: RuntimeSpec | None
    address: str = ""
    zone: str = ""
    labels: frozenset[str] = frozenset()
    drain_limit_s: float = 30.0
    patience_s: float = 30.0
    policy: Policy = DEFAULT


class Holdings:
    """`on_change` is called with a copy that moved, and the Predictors that this concerns.

    `claims` is None where no other node could load the same.
    """

    def __init__(
        self,
        identity: Identity,
        runtime: Runtime,
        view: View,
        announcer: Announcer,
        claims: Claims | None,
        on_change: Callable[[Copy, frozenset[PredictorName]], None],
        clock: Clock,
    ) -> None:
        self.tasks = Tasks()
        self.metrics = metrics.Metrics()
        self.room = Room(runtime, self._evict, clock.monotonic_s)
        self._identity = identity
        self._runtime = runtime
        self._view = view
        self._announcer = announcer
        self._on_change = on_change
        self._clock = clock
        self._claims = claims
        self._copies: dict[ModelId, Copy] = {}

    def __iter__(self) -> Iterator[Copy]:
        return iter(list(self._copies.values()))

    def get(self, model: ModelId) -> Copy | None:
        return self._copies.get(model)

    def start(
        self, model: ModelId, purpose: Purpose, protected: frozenset[ModelId], used_s: float = 0.0
    ) -> None:
        """Begins a copy; nothing where there is one already. A failed one is forgotten first.

        `used_s`: when the model was used last, in seconds since the epoch; 0 is now.
        """
        if (failed := self._copies.get(model)) is not None:
            failed.send(life.Forgiven())
        record = self._view.models.get(model)
        if model in self._copies or record is None:
            return
        limit_s = self._identity.drain_limit_s
        unused_s = self._clock.wall_s() - used_s if used_s else 0.0
        last_use_s = self._clock.monotonic_s() - unused_s
        copy = Copy(
            record,
            self,
            self._runtime.address,
            purpose,
            limit_s,
            protected,
            last_use_s,
            is_handed_over=used_s > 0,
        )
        self._copies[model] = copy
        self._publish(copy)

    def send(self, model: ModelId, event: life.Event) -> None:
        """Tells one copy; nothing where there is none."""
        if (copy := self._copies.get(model)) is not None:
            copy.send(event)

    def want(self, copy: Copy) -> None:
        """A request waits for this copy, which may evict others from now on."""
        if copy.is_handed_over or not copy.purpose.may_evict:
            copy.purpose, copy.is_handed_over = Purpose.USE, False
            self.room.changed()

    async def close(self) -> None:
        """Gives up every load and unload that is under way."""
        await self.tasks.close()

    # What a copy asks of its host.

    def now(self) -> float:
        return self._clock.wall_s()

    async def find_room(self, copy: Copy) -> None:
        claims = self._claims if copy.purpose.is_first else None
        if claims is not None and not await claims.take(copy.id):
            raise NotWanted("another node has it, or is at it")
        await self.room.find(copy)

    async def load(self, copy: Copy) -> int:
        info = self.room.info
        timeout_s = (info and info.load_timeout_s) or DEFAULT_LOAD_TIMEOUT_S
        started_s = self._clock.monotonic_s()
        loaded = await self._runtime.load(copy.model, timeout_s=timeout_s)
        took_s = self._clock.monotonic_s() - started_s
        fields = {"model": copy.id, "size_bytes": loaded.size_bytes}
        log.info("model loaded", extra={**fields, "seconds": round(took_s, 3)})
        self.metrics.observe(metrics.LOADMODEL, took_s * 1000.0)
        if loaded.sizing_s is not None:
            self.metrics.observe(metrics.MODEL_SIZING, loaded.sizing_s * 1000.0)
        copy.calls = self.room.calls
        is_limited = info is not None and info.is_concurrency_limited and loaded.max_concurrency
        copy.gate = Gate(loaded.max_concurrency) if is_limited else None
        if loaded.size_bytes > self.room.cache.capacity_bytes:
            cause = f"it takes {loaded.size_bytes} bytes, more than the node has for models"
            raise ModelLoadFailed(
                cause, model=copy.id, holds_memory=True, size_bytes=loaded.size_bytes
            )
        return loaded.size_bytes

    async def unload(self, model: ModelId) -> None:
        started_s = self._clock.monotonic_s()
        await self._runtime.unload(model)
        took_s = self._clock.monotonic_s() - started_s
        self.metrics.observe(metrics.UNLOADMODEL, took_s * 1000.0)
        log.info("model unloaded", extra={"model": model})

    def changed(self, copy: Copy, before: life.State) -> None:
        self._account(copy, before)
        self._count(copy.state, before)
        if isinstance(copy.state, life.Gone):
            del self._copies[copy.id]
        if isinstance(copy.state, life.Failed):
            log.warning("model failed", extra={"model": copy.id, "reason": copy.state.reason})
        self._publish(copy)
        if self._claims is not None and isinstance(copy.state, ENDS_OF_A_LOAD):
            self._claims.release(copy.id)
        self.room.changed()

    def unpinned(self, copy: Copy) -> None:
        self.room.changed()

    def _account(self, copy: Copy, before: life.State) -> None:
        """What the cache holds for a copy follows from its state."""
        cache = self.room.cache
        self.room.loading += isinstance(copy.state, life.Loading)
        self.room.loading -= isinstance(before, life.Loading)
        match copy.state:
            case life.Loading():
                pass
            case life.Loaded(size_bytes=size_bytes):
                cache.resize(copy.id, size_bytes)
                if copy.entry is not None:
                    copy.entry.pins -= 1  # that of the load itself
                for victim in cache.excess(copy.id):
                    self._evict(victim)
            case life.Draining() | life.Unloading():
                cache.leave(copy.id)
            case life.Queued() | life.Failed() | life.Gone():
                cache.drop(copy.id)
                copy.entry = None

    def _count(self, after: life.State, before: life.State) -> None:
        """What the metrics tell of a move."""
        match before, after:
            case life.Queued(since_s=began_s), life.Loading(since_s=since_s):
                waited_ms = max(0.0, since_s - began_s) * 1000.0
                self.metrics.observe(metrics.LOADING_QUEUE_DELAY, waited_ms)
            case _, life.Loaded(size_bytes=size_bytes):
                self.metrics.observe(metrics.LOADED_MODEL_SIZE, size_bytes)
            case _, life.Failed():
                self.metrics.add(metrics.LOADMODEL_FAILURE)
            case life.Unloading(attempts=first), life.Unloading(attempts=next_) if next_ > first:
                self.metrics.add(metrics.UNLOADMODEL_ATTEMPT_FAILURE)
                if first == 1:
                    self.metrics.add(metrics.UNLOADMODEL_FAILURE)

    def _evict(self, model: ModelId) -> None:
        log.info("model evicted", extra={"model": model})
        copy = self._copies[model]
        if copy.entry is not None:
            unused_s = self._clock.monotonic_s() - copy.entry.used_s
            self.metrics.observe(metrics.AGE_AT_EVICTION, unused_s * 1000.0)
        copy.send(life.Leave())

    def _publish(self, copy: Copy) -> None:
        node = self._identity.id
        key = records.copy_key(copy.id, node)
        record = _record(copy, node)
        if record is None:
            touched = self._view.drop_copy(copy.id, node)
            self._announcer.drop(key)
        else:
            touched = self._view.put(record)
            self._announcer.put(key, records.encode(record))
        self._on_change(copy, touched)


def _record(copy: Copy, node: NodeId) -> CopyRecord | None:
    shown = life.shown(copy.state)
    if shown is None:
        return None
    state = copy.state
    if isinstance(state, life.Failed):
        return CopyRecord(copy.id, node, shown, state.since_s, state.size_bytes, state.reason)
    return CopyRecord(copy.id, node, shown, state.since_s, life.held_bytes(state))
