"""One node: what it holds, what it routes to, and what it says of itself.

Everything here runs on one event loop. A change (records from the store, a move of a copy, news of
the runtime) is taken in without an await: the view, the routes and what is announced follow, the
transitions go on, and then those who wait are woken.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from mesh.agent.announce import Announcer
from mesh.agent.copy import Copy, Purpose
from mesh.agent.history import History
from mesh.agent.holdings import Holdings, Identity
from mesh.agent.intake import take_in
from mesh.agent.monitor import monitor
from mesh.agent.resolve import resolve
from mesh.agent.signals import Signals
from mesh.agent.transitions import Transitions
from mesh.core import copies as life
from mesh.core.errors import ModelNotFound
from mesh.core.ids import ModelId, PredictorName
from mesh.core.placement import Load, Question, is_failure_expired
from mesh.core.records import NodeRecord, NodeState
from mesh.core.status import ModelState, model_state
from mesh.core.view import View
from mesh.ops.clock import REAL_CLOCK, Clock
from mesh.registry.follow import Follower
from mesh.registry.port import Change, Registry
from mesh.runtime.port import KeyChanged, Progress, Runtime, RuntimeEvent, RuntimeInfo
from mesh.wire import records

log = logging.getLogger(__name__)

EXPIRY_TICK_S = 1.0
# No Predictor can have this name.
NODE_STATE = "/node/state"

Touched = Callable[[frozenset[PredictorName]], None]


class Node:
    """The engine; `run` it as a task. What the router needs of it is in `router.port`."""

    def __init__(
        self,
        identity: Identity,
        registry: Registry,
        runtime: Runtime,
        *,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self.view = View()
        self.routes: dict[str, tuple[Copy, ...]] = {}
        self.listeners: set[Touched] = set()
        self.follower = Follower(registry, self._take_in)
        self._identity = identity
        self._runtime = runtime
        self._clock = clock
        self._signals = Signals()
        self._announcer = Announcer(registry)
        self.history = History(self.view, clock.wall_s)
        self.holdings = Holdings(identity, runtime, self.view, self._announcer, self._touch, clock)
        self._transitions = Transitions(self.view, registry, self, clock.wall_s)
        self._record = NodeRecord(
            identity.id,
            NodeState.STARTING,
            runtime=identity.runtime.name,
            model_types=identity.runtime.model_types,
        )
        self._set_record(self._record)

    @property
    def is_ready(self) -> bool:
        """Whether it would serve a new request: the runtime is there and it is not draining."""
        return self._record.state is NodeState.READY

    @property
    def is_draining(self) -> bool:
        return self._record.state is NodeState.DRAINING

    async def state_changed(self) -> None:
        """Returns at the next change of `is_ready` or `is_draining`."""
        await self._signals.wait(NODE_STATE)

    async def run(self) -> None:
        """Follows, announces and watches the runtime, for ever; cancelled, it leaves the store."""
        patience_s = self._identity.patience_s
        watching = monitor(
            self._runtime, self, patience_s=patience_s, clock=self._clock.monotonic_s
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run())
                group.create_task(self._announcer.run())
                group.create_task(watching)
                group.create_task(self._expire_failures())
        finally:
            await self._transitions.close()
            await self.holdings.close()
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
        copy = self.holdings.get(model)
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
        state = model_state(predictor.active, self.view, now=self._clock.wall_s())
        return state in (ModelState.LOADED, ModelState.STANDBY)

    # What resolutions and transitions ask: see their protocols.

    def monotonic(self) -> float:
        return self._clock.monotonic_s()

    def copy(self, model: ModelId) -> Copy | None:
        return self.holdings.get(model)

    def question(self, model: ModelId) -> Question | None:
        record = self.view.models.get(model)
        if record is None:
            return None
        return Question(record, self.view.copies(model), self.view.nodes, self._clock.wall_s())

    def start(
        self, model: ModelId, decision: Load, purpose: Purpose, protected: frozenset[ModelId]
    ) -> None:
        """Begins a copy where the decision names this node."""
        if decision.node == self._identity.id:
            self.holdings.start(model, purpose, protected)

    def want(self, copy: Copy) -> None:
        self.holdings.want(copy)

    def forgive(self, model: ModelId) -> None:
        """Forgets that a model failed here, and offers it room once more."""
        copy = self.holdings.get(model)
        if copy is not None and isinstance(copy.state, life.Failed):
            self._transitions.forget(model)
            copy.send(life.Forgiven())

    # News of the runtime: see monitor.Listener.

    def runtime_ready(self, info: RuntimeInfo) -> None:
        self.holdings.room.open(info)
        self._set_record(replace(self._record, capacity_bytes=info.capacity_bytes))
        if not self.is_draining:
            self._set_state(NodeState.READY)
        # What was given up while it was away is begun again.
        self._touch(frozenset(self.view.predictors))

    def runtime_event(self, event: RuntimeEvent) -> None:
        match event:
            case KeyChanged(key=key):
                log.info("storage key changed", extra={"key": key})
                for copy in self.holdings:
                    if copy.model.source.storage_key == key:
                        self.forgive(copy.id)
            case Progress():
                self._progressed(event)

    def _progressed(self, progress: Progress) -> None:
        copy = self.holdings.get(progress.model)
        if copy is not None and isinstance(copy.state, life.Loading):
            copy.progress = progress
            self._tell(self.view.names(progress.model))

    def runtime_lost(self) -> None:
        self.holdings.room.close()
        for copy in self.holdings:
            copy.send(life.RuntimeLost())
        if not self.is_draining:
            self._set_state(NodeState.STARTING)

    def adapter_lost(self) -> None:
        self.holdings.room.close()
        for copy in self.holdings:
            copy.send(life.AdapterLost())

    def runtime_failing(self) -> None:
        """Whoever waits for the runtime is told that it does not come."""
        if not self.is_draining:
            self._set_state(NodeState.FAILING)
        for copy in self.holdings:
            if isinstance(copy.state, life.Queued):
                copy.send(life.Leave())

    async def _expire_failures(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_TICK_S)
            for copy in self.holdings:
                state = copy.state
                if isinstance(state, life.Failed) and is_failure_expired(
                    state.since_s, self._clock.wall_s()
                ):
                    self.forgive(copy.id)

    # Await-free from here on.

    def _take_in(self, changes: tuple[Change, ...]) -> None:
        taken = take_in(self.view, changes, own=self._identity.id)
        for name in taken.touched:
            self._reroute(name)  # nobody is sent to a copy that is about to leave
        for model in taken.dropped:
            self._transitions.forget(model)
            self.holdings.send(model, life.Leave())
        self._touch(taken.touched)

    def _touch(self, names: frozenset[PredictorName]) -> None:
        """Something about these Predictors changed."""
        if not names:
            return
        for name in names:
            self._reroute(name)
            self.history.look(name)
            self._transitions.consider(name)
        self._signals.notify(names)
        self._tell(names)

    def _tell(self, names: frozenset[PredictorName]) -> None:
        for listener in tuple(self.listeners):
            listener(names)

    def _reroute(self, name: PredictorName) -> None:
        predictor = self.view.predictors.get(name)
        copy = None if predictor is None else self.holdings.get(predictor.active)
        if copy is not None and copy.is_loaded:
            self.routes[name] = (copy,)
        else:
            self.routes.pop(name, None)

    def _set_state(self, state: NodeState) -> None:
        if state is not self._record.state:
            self._set_record(replace(self._record, state=state))
            self._signals.notify((NODE_STATE,))

    def _set_record(self, record: NodeRecord) -> None:
        self._record = record
        self.view.put(record)
        self._announcer.put(records.node_key(record.id), records.encode(record))
