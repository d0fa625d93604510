"""One node: what it holds, what it routes to, and what it says of itself.

Everything here runs on one event loop. A change (records from the store, a move of a copy, news of
the runtime or of a peer) is taken in without an await: the view, the routes and what is announced
follow, the transitions go on, and then those who wait are woken.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping

from mesh.agent.announce import Announcer
from mesh.agent.claims import Claims
from mesh.agent.copy import Copy, Purpose
from mesh.agent.doubts import Doubts
from mesh.agent.errands import Errands
from mesh.agent.farewell import bid_farewell, let_go
from mesh.agent.fortunes import Fortunes
from mesh.agent.growth import Growth
from mesh.agent.hearsay import Hearsay
from mesh.agent.history import History
from mesh.agent.holdings import Holdings, Identity
from mesh.agent.intake import News, Reading, take_in
from mesh.agent.leave import hand_over
from mesh.agent.lookup import Lookup
from mesh.agent.memory import SharedMemory
from mesh.agent.monitor import monitor
from mesh.agent.pulse import Pulse
from mesh.agent.questions import Questions
from mesh.agent.reach import Reach
from mesh.agent.recall import Company
from mesh.agent.remote import RemoteCopy
from mesh.agent.reseed import Reseed
from mesh.agent.resolve import Hold, resolve
from mesh.agent.routes import Route, Routes
from mesh.agent.serving import ensure_loaded
from mesh.agent.signals import Signals, model_signal
from mesh.agent.standing import Standing
from mesh.agent.transitions import Transitions
from mesh.agent.wishes import Longing, Wishes
from mesh.core import copies as life
from mesh.core.errors import ModelNotFound
from mesh.core.ids import ModelId, NodeId, PredictorName, Revision, RuntimeName
from mesh.core.placement import Question, is_failure_expired
from mesh.core.records import NodeRecord, NodeState
from mesh.core.rendezvous import rendezvous
from mesh.core.status import ModelState, model_state
from mesh.core.view import View
from mesh.ops.clock import REAL_CLOCK, Clock
from mesh.ops.tasks import Tasks
from mesh.peers.port import Ask, Outcome, Peers
from mesh.registry.follow import Follower, Past
from mesh.registry.port import Registry
from mesh.runtime.port import Runtime
from mesh.wire import records

log = logging.getLogger(__name__)

TICK_S = 1.0
CATCH_UP_S = 1.0
# No Predictor can have this name.
NODE_STATE = "/node/state"
# How many more requests the copy on this node may have than another one before that is used.
HOP_WORTH = 8

Touched = Callable[[frozenset[PredictorName]], None]


class Node:
    """The engine; `run` it as a task. What the router needs of it is in `router.port`.

    `peers`: how other nodes are spoken to; an Identity without an address has none.
    """

    def __init__(
        self,
        identity: Identity,
        registry: Registry,
        runtime: Runtime,
        peers: Peers,
        *,
        clock: Clock = REAL_CLOCK,
    ) -> None:
        self.view = View()
        self.listeners: set[Touched] = set()
        self.identity = identity
        self.follower = Follower(registry, Reading, self._take_in, on_reset=self._reset)
        self._runtime = runtime
        self._peers = peers
        self._clock = clock
        self.signals = Signals()
        self._announcer = Announcer(registry)
        self._announcing: asyncio.Task[None] | None = None
        self._handing_over: asyncio.Task[None] | None = None
        self.has_left = False
        self._tasks = Tasks()
        self.history = History(self.view, clock.wall_s)
        self.reach = Reach(peers, self.view.nodes, self._reach_changed)
        self._hearsay = Hearsay(self.view, self.follower, clock, self._touch)
        self._errands = Errands(peers, self._hearsay.take, self._errand_ended, self.reach.lost)
        self._questions = Questions(
            self.view, self.reach, self._errands, identity.policy.constraints, clock.wall_s
        )
        self._doubts = Doubts(identity.id, self.view, self.reach, self._believe)
        self._lookup = Lookup(registry, self.follower)
        company = Company(identity.id, self.view, self.reach)
        self._reseed = Reseed(self.view, self.follower, registry, company, self._believe)
        self.memory = SharedMemory(
            identity.id, self.view, self.follower, peers, self._believe, self._hearsay.take
        )
        self.pulse = Pulse(
            identity.id, registry, self.follower, clock, self._reseed.settled, self.memory.refresh
        )
        claims = None
        if identity.address:
            is_served = self._is_served_elsewhere
            claims = Claims(identity.id, self._announcer, self.follower, is_served)
        self.holdings = Holdings(
            identity,
            runtime,
            self.view,
            self._announcer,
            claims,
            self._copy_moved,
            clock,
        )
        self._routes = Routes(identity.id, self.view, self.reach, self.holdings.get)
        self._wishes = Wishes(self.view, registry, clock.wall_s)
        self._transitions = Transitions(self.view, registry, self, clock.wall_s)
        record = _record(identity, clock.wall_s())
        self._growth = Growth(self, identity.policy.thresholds)
        self.standing = Standing(record, self.view, self._announcer, clock, self._state_moved)
        self._fortunes = Fortunes(self, self._transitions)

    @property
    def routes(self) -> Mapping[str, Route]:
        """The Loaded copies behind each Predictor that has any which can be reached."""
        return self._routes.table

    @property
    def is_ready(self) -> bool:
        """Whether it would serve a new request: the runtime is there and it is not draining."""
        return self.standing.state is NodeState.READY

    @property
    def is_draining(self) -> bool:
        return self.standing.state is NodeState.DRAINING

    async def state_changed(self) -> None:
        """Returns at the next change of `is_ready` or `is_draining`."""
        await self.signals.wait(NODE_STATE)

    async def run(self) -> None:
        """Follows, announces and watches the runtime, for ever; cancelled, it leaves the store."""
        patience_s = self.identity.patience_s
        watching = monitor(
            self._runtime, self._fortunes, patience_s=patience_s, clock=self._clock.monotonic_s
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.follower.run())
                self._announcing = group.create_task(self._announcer.run())
                group.create_task(watching)
                group.create_task(self._tick())
                group.create_task(self.pulse.run())
        finally:
            await self._tasks.close()
            await self._transitions.close()
            await self._wishes.close()
            await self._reseed.close()
            await self._doubts.close()
            await self._errands.close()
            await self.reach.close()
            await self.holdings.close()
            await self._runtime.close()

    def drain(self) -> None:
        """Takes no new loads from now on; what is Loaded goes on serving, and is handed over."""
        if self.is_draining:
            return
        self.standing.set_state(NodeState.DRAINING)
        if self.identity.address:
            self._handing_over = self._tasks.spawn(hand_over(self, self._clock), "hand over")

    async def leave(self, limit_s: float) -> bool:
        """Drains; returns once its models are handed over, or after `limit_s`: whether they are."""
        self.drain()
        task = self._handing_over
        if task is None:
            return True
        await asyncio.wait([task], timeout=limit_s)
        return task.done() and not task.cancelled() and task.exception() is None

    async def withdraw(self) -> None:
        """Takes this node and its copies out of the store, for good; what is in flight goes on."""
        self.has_left = True
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.wait([self._announcing])

    async def bid_farewell(self, limit_s: float) -> bool:
        """Returns once no peer has a call open to this node; False where one has not said so."""
        return await bid_farewell(self, self._peers, limit_s)

    # What the router asks.

    async def resolve(self, name: str) -> Copy | RemoteCopy:
        """A Loaded copy for this Predictor, entered once; see `resolve.resolve`."""
        if name not in self.view.predictors:
            await self._lookup.see(PredictorName(name))
        return await resolve(name, self.view, self, self.signals)

    def pick(self, route: Route) -> Copy | RemoteCopy:
        """One of the copies of a route: the less busy of two, one of them here if there is one."""
        count = len(route)
        if count == 1:
            return route[0]
        at, worth = 0, HOP_WORTH
        if route[0].hop:
            at, worth = int(random.random() * count), 0  # noqa: S311 - no secret
        # Never `at` itself; what is below 0 counts from the end.
        other = at - 1 - int(random.random() * (count - 1))  # noqa: S311 - no secret
        first, second = route[at], route[other]
        return first if first.in_flight <= second.in_flight + worth else second

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

    def unreachable(self, copy: Copy | RemoteCopy) -> None:
        """A connection to the copy's node failed."""
        if isinstance(copy, RemoteCopy):
            self.reach.lost(copy.node)

    async def not_here(self, copy: Copy | RemoteCopy, revision: int) -> None:
        """The copy's node says that it has none, and what of the store it has seen."""
        if isinstance(copy, RemoteCopy):
            self._touch(self.view.drop_copy(copy.id, copy.node))
            await self.catch_up(Revision(revision))

    async def catch_up(self, revision: Revision) -> None:
        """Returns once the view is as new as that, or after a second."""
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self.follower.caught_up(revision)
        except TimeoutError:
            log.info("behind the store", extra={"revision": revision})

    def is_model_ready(self, name: str) -> bool:
        """Whether an inference would be answered: the active model is Loaded or loads on use."""
        predictor = self.view.predictors.get(PredictorName(name))
        if predictor is None:
            raise ModelNotFound(name)
        state = model_state(predictor.active, self.view, now=self._clock.wall_s())
        return state in (ModelState.LOADED, ModelState.STANDBY)

    # What another node asks.

    async def ensure_loaded(self, ask: Ask) -> Outcome:
        """Has a model loaded here for a peer; see `serving.ensure_loaded`."""
        return await ensure_loaded(ask, self)

    async def let_go(self, node: NodeId) -> None:
        """Sends nothing more to a node that has left; returns once it has answered what it got."""
        self.reach.left(node)
        await let_go(self._routes.open_to(node))

    # What resolutions and transitions ask: see their protocols.

    def monotonic(self) -> float:
        return self._clock.monotonic_s()

    async def fresh(self) -> None:
        await self.pulse.fresh()

    def copy(self, model: ModelId) -> Copy | None:
        return self.holdings.get(model)

    @property
    def is_alone(self) -> bool:
        return not self.identity.address

    def is_down(self, node: NodeId) -> bool:
        return self.reach.is_down(node)

    def holds(self, model: ModelId) -> bool:
        copy = self.holdings.get(model)
        return copy is not None and copy.is_loaded

    def rank(self, name: PredictorName) -> int:
        live = [
            node.id
            for node in self.view.nodes.values()
            if node.state is not NodeState.DRAINING and not self.reach.is_down(node.id)
        ]
        order = rendezvous(name, live)
        return order.index(self.identity.id) if self.identity.id in order else len(order)

    def resting(self, model: ModelId) -> frozenset[NodeId]:
        return self._errands.resting(model)

    def question(
        self, model: ModelId, *, fill: bool = False, extra: bool = False
    ) -> Question | None:
        # Alone, there is nothing to choose: the copy waits for its room, or is told of none.
        return self._questions.ask(model, fill=fill and not self.is_alone, extra=extra)

    def long_for(self, model: ModelId, runtimes: tuple[RuntimeName, ...]) -> Longing:
        return self._wishes.hold(model, runtimes)

    def wish(self, runtimes: Iterable[RuntimeName]) -> None:
        self._wishes.wish(runtimes)

    def load(
        self,
        model: ModelId,
        node: NodeId,
        purpose: Purpose,
        protected: frozenset[ModelId] = frozenset(),
        used_s: float = 0.0,
    ) -> Hold | None:
        """Has this node or another one load it, or be sure to; `used_s` as Ask has it."""
        if node == self.identity.id:
            self.holdings.start(model, purpose, protected, used_s)
            copy = self.holdings.get(model)
            if copy is not None and purpose is Purpose.USE:
                self.holdings.want(copy)
            return copy
        record = self.view.nodes.get(node)
        if record is None:
            return None
        self.reach.use(node)
        ask = Ask(model, purpose.value, self.follower.revision, protected, used_s)
        return self._errands.send(record, ask)

    def match(self, model: ModelId, before: ModelId) -> None:
        """Has a model that takes over as many copies as the one before it, where there is room."""
        self._growth.match(model, before)

    def has_failed_before(self, model: ModelId) -> bool:
        """Whether it failed on nodes that are gone, and that counts here."""
        return self._questions.has_failed_before(model)

    def forgive(self, model: ModelId) -> None:
        """Forgets that a model failed here, and offers it room once more."""
        self._questions.forgive(model)
        copy = self.holdings.get(model)
        if copy is not None and isinstance(copy.state, life.Failed):
            self._transitions.offer(model, is_own=True)
            copy.send(life.Forgiven())

    def forgive_key(self, key: str) -> None:
        """A storage key changed: what failed with it may not fail any more."""
        for copy in self.holdings:
            if copy.model.common_source.storage_key == key:
                self.forgive(copy.id)
        self._questions.forgive_key(key)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.standing.look(self.holdings, self.holdings.room)
            self._transitions.tick()
            self._touch(self._wishes.tick())
            self._questions.tick()
            self._hearsay.tick()
            if self.identity.address and not self.is_draining:
                self._growth.sample()
            now = self._clock.wall_s()
            for copy in self.holdings:
                state = copy.state
                if isinstance(state, life.Failed) and is_failure_expired(state.since_s, now):
                    self.forgive(copy.id)

    # Await-free from here on.

    def _take_in(self, changes: tuple[News, ...]) -> None:
        """A commit of the store."""
        self._reseed.seen(changes)
        self._believe(self._doubts.sift(self.memory.sift(changes)))

    def _believe(self, changes: tuple[News, ...]) -> None:
        has_nodes = any(change.key.startswith(records.NODES) for change in changes)
        before = dict(self.view.nodes) if has_nodes else self.view.nodes
        taken = take_in(
            self.view,
            changes,
            own=self.identity.id,
            going=self._questions.going,
            changing=self.history.keep,
        )
        touched = taken.touched | (self._touched_by_nodes(before) if has_nodes else frozenset())
        for name in touched:
            self._routes.renew(name)  # nobody is sent to a copy that is about to leave
        for model in taken.added:
            self._transitions.offer(model)
        for model in taken.dropped:
            self._transitions.forget(model)
            self.holdings.send(model, life.Leave())
        self._touch(touched)

    def _touched_by_nodes(self, before: Mapping[NodeId, NodeRecord]) -> frozenset[PredictorName]:
        """The Predictors with copies on nodes that came, went, or changed their state."""

        def routed(record: NodeRecord | None) -> object:
            return record and (record.state, record.address)

        after = self.view.nodes
        moved = [
            node
            for node in before.keys() | after.keys()
            if routed(before.get(node)) != routed(after.get(node))
        ]
        return frozenset(name for node in moved for name in self.view.names_on(node))

    def _reset(self, missing: frozenset[str], past: Past) -> None:
        """The store lost data, or is another one."""
        self._announcer.doubt()
        self._reseed.reset(missing, past)
        self._doubts.reset(missing)

    def _errand_ended(self, model: ModelId) -> None:
        self._touch(self.view.names(model))

    def _reach_changed(self, node: NodeId) -> None:
        self._touch(self.view.names_on(node))

    def _is_served_elsewhere(self, model: ModelId) -> bool:
        return any(upstream.hop for upstream in self._routes.to(model))

    def _copy_moved(self, copy: Copy, names: frozenset[PredictorName]) -> None:
        if isinstance(copy.state, life.Gone):
            self.standing.ended(copy)
        if self.standing.is_due:
            self.standing.look(self.holdings, self.holdings.room)
        self._touch(names)
        self.signals.notify((model_signal(copy.id),))

    def _state_moved(self) -> None:
        self.signals.notify((NODE_STATE,))
        self._touch(self.view.names_on(self.identity.id))

    def _touch(self, names: frozenset[PredictorName]) -> None:
        """Something about these Predictors changed."""
        if not names:
            return
        for name in names:
            self._routes.renew(name)
            self.history.look(name)
            self._transitions.consider(name)
        self.signals.notify(names)
        self.tell(names)

    def tell(self, names: frozenset[PredictorName]) -> None:
        for listener in tuple(self.listeners):
            listener(names)


def _record(identity: Identity, now: float) -> NodeRecord:
    runtime = identity.runtime
    return NodeRecord(
        identity.id,
        NodeState.STARTING,
        address=identity.address,
        runtime=None if runtime is None else runtime.name,
        model_types=frozenset() if runtime is None else runtime.model_types,
        zone=identity.zone,
        labels=identity.labels,
        joined_s=now,
    )
