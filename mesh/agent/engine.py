"""One node: its copies, what it routes to, and what it says of itself.

Everything here runs on one event loop. A change (records from the store, a step of a copy, news of
the runtime) is taken in without an await: the view, the routes and what is announced follow, the
transitions go on, and then those who wait are woken.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mesh.agent.announce import Announcer
from mesh.agent.copy import Copy, Purpose
from mesh.agent.monitor import monitor
from mesh.agent.resolve import resolve
from mesh.agent.room import Room
from mesh.agent.signals import Signals
from mesh.agent.transitions import Transitions
from mesh.core import copies as life
from mesh.core.errors import ModelLoadFailed, ModelNotFound
from mesh.core.ids import ModelId, NodeId, PredictorName, StorageKey
from mesh.core.placement import Load, Question, is_remembered
from mesh.core.records import CopyRecord, NodeRecord, NodeState
from mesh.core.spec import RuntimeSpec
from mesh.core.status import ModelState, model_state
from mesh.core.view import View
from mesh.ops.clock import monotonic_s, wall_s
from mesh.ops.tasks import Tasks
from mesh.registry.follow import Follower
from mesh.registry.port import Change, Registry
from mesh.runtime.port import KeyChanged, Runtime, RuntimeEvent, RuntimeInfo
from mesh.wire import records

log = logging.getLogger(__name__)

DEFAULT_LOAD_TIMEOUT_S = 90.0
EXPIRY_TICK_S = 1.0
# No Predictor can have this name.
NODE_STATE = "/node/state"

Touched = Callable[[frozenset[PredictorName]], None]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is. `drain_limit_s` bounds how long requests in flight hold up an unload;
    `patience_s` how long requests wait for a runtime that is away."""

    id: NodeId
    runtime: RuntimeSpec
    drain_limit_s: float = 30.0
    patience_s: float = 30.0


class Node:
    """The engine; `run` it as a task. What the router needs of it is in `router.port`."""

    def __init__(self, identity: Identity, registry: Registry, runtime: Runtime) -> None:
        self.view = View()
        self.tasks = Tasks()
        self.routes: dict[str, tuple[Copy, ...]] = {}
        self.listeners: set[Touched] = set()
        self._identity = identity
        self._runtime = runtime
        self._registry = registry
        self._copies: dict[ModelId, Copy] = {}
        self._signals = Signals()
        self._room = Room(runtime, self._evict, monotonic_s)
        self._transitions = Transitions(self.view, registry, self, wall_s)
        self._announcer = Announcer(registry)
        self.follower = Follower(registry, self._take_in)
        self._record = NodeRecord(
            identity.id,
            NodeState.STARTING,
            runtime=identity.runtime.name,
            model_types=identity.runtime.model_types,
        )
        self._announce_node()

    @property
    def is_ready(self) -> bool:
        """Whether it would serve a new request: the runtime is there and it is not draining."""
        return self._record.state is NodeState.READY

    async def state_changed(self) -> None:
        """Returns at the next change of `is_ready` or `is_draining`."""
        await self._signals.wait(NODE_STATE)

    @property
    def is_draining(self) -> bool:
        return self._record.state is NodeState.DRAINING

    async def run(self) -> None:
        """Follows, announces and watches the runtime, for ever; cancelled, it leaves the store."""
        patience_s = self._identity.patience_s
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run())
                group.create_task(self._announcer.run())
                group.create_task(
                    monitor(self._runtime, self, patience_s=patience_s, clock=monotonic_s)
                )
                group.create_task(self._expire_failures())
        finally:
            await self._transitions.close()
            await self.tasks.close()
            await self._runtime.close()

    def drain(self) -> None:
        """Takes no new loads from now on; what is Loaded goes on serving."""
        self._set_state(NodeState.DRAINING)

    # What the router asks.

    async def resolve(self, name: str) -> Copy:
        """A Loaded copy for this Predictor, entered once; see `resolve.resolve`."""
        return await resolve(name, self.view, self, self._signals)

    async def recheck(self, model: ModelId) -> bool:
        """After a NOT_FOUND of the runtime: whether it lost the copy, which is forgotten then."""
        copy = self._copies.get(model)
        if copy is None or not copy.is_loaded:
            return True
        if await self._runtime.has(model):
            return False
        log.warning("runtime lost a model", extra={"model": model})
        copy.send(life.RuntimeLost())
        return True

    def is_model_ready(self, name: str) -> bool:
        """Whether an inference would be answered: the active model is Loaded or loads on use."""
        predictor = self.view.predictors.get(PredictorName(name))
        if predictor is None:
            raise ModelNotFound(name)
        state = model_state(predictor.active, self.view, now=wall_s())
        return state in (ModelState.LOADED, ModelState.STANDBY)

    # What resolutions, transitions and copies ask: see their protocols.

    def now(self) -> float:
        return wall_s()

    def monotonic(self) -> float:
        return monotonic_s()

    def copy(self, model: ModelId) -> Copy | None:
        return self._copies.get(model)

    def question(self, model: ModelId) -> Question | None:
        record = self.view.models.get(model)
        if record is None:
            return None
        return Question(record, self.view.copies(model), self.view.nodes, wall_s())

    def start(
        self, model: ModelId, decision: Load, purpose: Purpose, protected: frozenset[ModelId]
    ) -> None:
        """Begins a copy on this node; nothing where the decision names another, or there is one."""
        if decision.node != self._identity.id or model not in self.view.models:
            return
        if (failed := self._copies.get(model)) is not None:
            failed.send(life.Forgiven())
        if model in self._copies:
            return
        record = self.view.models[model]
        limit_s = self._identity.drain_limit_s
        copy = Copy(record, self, self._runtime.address, purpose, limit_s, protected)
        self._copies[model] = copy
        self._publish(copy)

    def want(self, copy: Copy) -> None:
        if copy.purpose is Purpose.FILL:
            copy.purpose = Purpose.USE
            self._room.changed()

    async def find_room(self, copy: Copy) -> None:
        await self._room.find(copy)

    async def load(self, copy: Copy) -> int:
        info = self._room.info
        timeout_s = (info and info.load_timeout_s) or DEFAULT_LOAD_TIMEOUT_S
        started_s = monotonic_s()
        loaded = await self._runtime.load(copy.model, timeout_s=timeout_s)
        fields = {"model": copy.id, "size_bytes": loaded.size_bytes}
        log.info("model loaded", extra={**fields, "seconds": round(monotonic_s() - started_s, 3)})
        if loaded.size_bytes > self._room.cache.capacity_bytes:
            cause = f"it takes {loaded.size_bytes} bytes, more than the node has for models"
            raise ModelLoadFailed(cause, model=copy.id, holds_memory=True)
        return loaded.size_bytes

    async def unload(self, model: ModelId) -> None:
        await self._runtime.unload(model)
        log.info("model unloaded", extra={"model": model})

    def changed(self, copy: Copy, before: life.State) -> None:
        """A copy made a move: its room, its routes and its record follow."""
        self._account(copy, before)
        if isinstance(copy.state, life.Gone) and self._copies.get(copy.id) is copy:
            del self._copies[copy.id]
        if isinstance(copy.state, life.Failed):
            log.warning("model failed", extra={"model": copy.id, "reason": copy.state.reason})
        self._publish(copy)
        self._room.changed()

    # News of the runtime: see monitor.Listener.

    def runtime_ready(self, info: RuntimeInfo) -> None:
        self._room.open(info)
        self._record = replace(self._record, capacity_bytes=info.capacity_bytes)
        if not self.is_draining:
            self._set_state(NodeState.READY)

    def runtime_event(self, event: RuntimeEvent) -> None:
        match event:
            case KeyChanged(key=key):
                self._forgive_key(key)
            case _:
                pass

    def runtime_lost(self) -> None:
        self._room.close()
        for copy in list(self._copies.values()):
            copy.send(life.RuntimeLost())
        if not self.is_draining:
            self._set_state(NodeState.STARTING)

    def runtime_failing(self) -> None:
        """Whoever waits for the runtime is told that it does not come."""
        self._set_state(NodeState.FAILING)
        for copy in list(self._copies.values()):
            if isinstance(copy.state, life.Queued):
                copy.send(life.Leave())

    def forgive(self, model: ModelId) -> None:
        """Forgets that a model failed, and offers it room once more."""
        copy = self._copies.get(model)
        if copy is not None and isinstance(copy.state, life.Failed):
            self._transitions.forget(model)
            copy.send(life.Forgiven())

    def _forgive_key(self, key: StorageKey) -> None:
        log.info("storage key changed", extra={"key": key})
        for copy in list(self._copies.values()):
            if copy.model.source.storage_key == key:
                self.forgive(copy.id)

    async def _expire_failures(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_TICK_S)
            for copy in list(self._copies.values()):
                record = self._copy_record(copy)
                if record is not None and not is_remembered(record, now=wall_s()):
                    self.forgive(copy.id)

    # Taking changes in. Nothing below awaits.

    def _take_in(self, changes: tuple[Change, ...]) -> None:
        touched: set[PredictorName] = set()
        dropped: list[ModelId] = []
        for change in changes:
            touched |= self._take_in_one(change, dropped)
        self._reroute(touched)
        for model in dropped:
            self._transitions.forget(model)
            if (copy := self._copies.get(model)) is not None:
                copy.send(life.Leave())
        self._touch(touched)

    def _take_in_one(self, change: Change, dropped: list[ModelId]) -> frozenset[PredictorName]:
        prefix, names = records.key_parts(change.key)
        if self._is_own(prefix, names):
            return frozenset()
        if change.value is not None:
            try:
                record = records.decode(change.key, change.value)
            except records.Unreadable as error:
                log.error("record ignored", extra={"key": error.key, "problem": error.problem})  # noqa: TRY400
                return frozenset()
            return frozenset() if record is None else self.view.put(record)
        return self._drop(prefix, names, dropped)

    def _drop(
        self, prefix: str, names: tuple[str, ...], dropped: list[ModelId]
    ) -> frozenset[PredictorName]:
        match prefix:
            case records.PREDICTORS:
                return self.view.drop_predictor(PredictorName(names[0]))
            case records.MODELS:
                dropped.append(ModelId(names[0]))
                return self.view.drop_model(ModelId(names[0]))
            case records.COPIES:
                return self.view.drop_copy(ModelId(names[0]), NodeId(names[1]))
            case records.NODES:
                return self.view.drop_node(NodeId(names[0]))
        return frozenset()

    def _is_own(self, prefix: str, names: tuple[str, ...]) -> bool:
        return prefix in (records.COPIES, records.NODES) and names[-1] == self._identity.id

    def _publish(self, copy: Copy) -> None:
        """The copy's record, as it is now, in the view and in the store."""
        key = records.copy_key(copy.id, self._identity.id)
        record = self._copy_record(copy)
        if record is None:
            touched = self.view.drop_copy(copy.id, self._identity.id)
            self._announcer.drop(key)
        else:
            touched = self.view.put(record)
            self._announcer.put(key, records.encode(record))
        self._reroute(touched)
        self._touch(touched)

    def _copy_record(self, copy: Copy) -> CopyRecord | None:
        shown = life.shown(copy.state)
        if shown is None:
            return None
        reason = copy.state.reason if isinstance(copy.state, life.Failed) else ""
        size_bytes = life.held_bytes(copy.state)
        since_s = copy.state.since_s
        return CopyRecord(copy.id, self._identity.id, shown, since_s, size_bytes, reason)

    def _reroute(self, names: Iterable[PredictorName]) -> None:
        for name in names:
            predictor = self.view.predictors.get(name)
            copy = None if predictor is None else self._copies.get(predictor.active)
            if copy is not None and copy.is_loaded:
                self.routes[name] = (copy,)
            else:
                self.routes.pop(name, None)

    def _touch(self, names: Iterable[PredictorName]) -> None:
        touched = frozenset(names)
        if not touched:
            return
        for name in touched:
            self._transitions.consider(name)
        self._signals.notify(touched)
        for listener in list(self.listeners):
            listener(touched)

    def _account(self, copy: Copy, before: life.State) -> None:
        """What the cache holds for a copy follows from its state."""
        cache = self._room.cache
        self._room.loading += isinstance(copy.state, life.Loading) - isinstance(
            before, life.Loading
        )
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

    def _evict(self, model: ModelId) -> None:
        log.info("model evicted", extra={"model": model})
        self._copies[model].send(life.Leave())

    def _set_state(self, state: NodeState) -> None:
        if state is not self._record.state:
            self._record = replace(self._record, state=state)
            self._signals.notify((NODE_STATE,))
        self._announce_node()

    def _announce_node(self) -> None:
        self.view.put(self._record)
        self._announcer.put(records.node_key(self._record.id), records.encode(self._record))
