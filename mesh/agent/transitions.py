"""Drives Predictors to their targets: loads what is to be loaded, and reports what is.

`consider` is called whenever something about a Predictor changed; it decides from the view alone,
so that a call too many does nothing. In a mesh the first of the live nodes in rendezvous order
acts; the next ones do what is still to be done two seconds later each, should it be frozen or cut
off.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from mesh.agent.copy import Purpose
from mesh.agent.predictors import advance
from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.placement import Load, Question, Wait, decide
from mesh.core.records import CopyRecord, CopyState, Predictor
from mesh.core.runtimes import pending, ready_offers
from mesh.core.spec import RuntimeSpec
from mesh.core.transition import ModelLoaded
from mesh.core.view import View
from mesh.ops.tasks import Tasks
from mesh.registry.port import Check, Registry, Unchanged
from mesh.wire import records

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.01
RETRY_S = 0.5
# How long a node has for a step before the next one in order takes it.
RANK_S = 2.0
FILLS = 4
FILL_S = 2.0
FILLS_AT_ONCE = 64
SOME = 1
A_TICK = 500
FEW = 1000


class Loader(Protocol):
    """Who starts a copy where placement says so."""

    def question(self, model: ModelId, *, fill: bool = False) -> Question | None:
        """None where the view does not know the model yet."""
        ...

    def load(
        self, model: ModelId, node: NodeId, purpose: Purpose, protected: frozenset[ModelId]
    ) -> object: ...

    def match(self, model: ModelId, before: ModelId) -> None:
        """Has a model that takes over as many copies as the one before it, where there is room."""
        ...

    def wish(self, runtimes: Iterable[RuntimeName]) -> None:
        """Has it known that a node of one of these is waited for."""
        ...

    def rank(self, name: PredictorName) -> int:
        """How many live nodes go before this one with this Predictor."""
        ...

    def holds(self, model: ModelId) -> bool:
        """Whether a copy on this node is Loaded."""
        ...

    @property
    def is_alone(self) -> bool:
        """Whether there is no other node, whose figures could be behind."""
        ...

    def monotonic(self) -> float: ...


class Transitions:
    """One per node; what it remembers goes with the models that it is about."""

    def __init__(
        self, view: View, registry: Registry, loader: Loader, now: Callable[[], float]
    ) -> None:
        self._view = view
        self._registry = registry
        self._loader = loader
        self._now = now
        self._tasks = Tasks()
        # To be offered room once it is found at rest. Mostly empty, where models are very many.
        self._to_offer: set[ModelId] = set()
        # Of these, what is offered by this node whoever's turn it is.
        self._own: set[ModelId] = set()
        self._line: dict[ModelId, None] = {}
        self._fills: dict[ModelId, tuple[int, float]] = {}
        # No node can serve them yet; `_ready` is what nodes have offered ever since that was seen.
        self._waiting: set[ModelId] = set()
        self._ready: frozenset[RuntimeSpec] = frozenset()
        self._awaiting: dict[ModelId, tuple[RuntimeName, ...]] = {}
        self._moving: dict[PredictorName, tuple[ModelId, float]] = {}
        self._reporting: set[tuple[PredictorName, ModelId]] = set()

    def consider(self, name: PredictorName) -> None:
        """Takes the next step of this Predictor's transition, if it is our turn."""
        predictor = self._view.predictors.get(name)
        if predictor is None or not (_is_moving(predictor) or predictor.min_copies):
            self._moving.pop(name, None)
        if predictor is None:
            return
        self._awaiting.pop(predictor.active, None)
        if self._is_loaded(predictor.target):
            if _is_moving(predictor) or not predictor.served:
                is_ours = self._loader.holds(predictor.target) or self._is_our_turn(predictor)
                if is_ours:
                    self._report(predictor)
        elif _is_moving(predictor) or predictor.min_copies:
            if self._is_our_turn(predictor):
                self._load(predictor.target, Purpose.TARGET, frozenset({predictor.active}))
        else:
            self._offer(predictor)

    def tick(self) -> None:
        """Looks at what should have moved on by now; called about once a second."""
        for name in list(self._moving):
            self.consider(name)
        now = self._loader.monotonic()
        for model, (tries, again_s) in list(self._fills.items()):
            if now >= again_s or self._is_loaded(model):
                del self._fills[model]
                self._fill(model, tries)
        self._look_for_nodes()
        self._fill_some(A_TICK)
        if len(self._to_offer) + len(self._line) < FEW:  # tables keep the size that they once had
            self._to_offer, self._line = set(self._to_offer), dict(self._line)
        for runtimes in set(self._awaiting.values()):
            self._loader.wish(runtimes)

    def _look_for_nodes(self) -> None:
        """Offers room once more to what waits for a node, where there are others than before."""
        if not self._waiting:
            return
        before, self._ready = self._ready, frozenset(ready_offers(self._view.nodes.values()))
        if self._ready - before:
            for model in tuple(self._waiting):
                for name in self._view.names(model):
                    self.consider(name)

    def _fill_some(self, most: int) -> None:
        """A few at once: after a start there may be very many, and room for few of them."""
        for _ in range(most):
            if not self._line or len(self._fills) >= FILLS_AT_ONCE:
                return
            model = next(iter(self._line))
            del self._line[model]
            self._fill(model, 1 if self._loader.is_alone else FILLS)

    def forget(self, model: ModelId) -> None:
        """The model is gone."""
        self._to_offer.discard(model)
        self._own.discard(model)
        self._waiting.discard(model)
        self._fills.pop(model, None)
        self._line.pop(model, None)
        self._awaiting.pop(model, None)

    def offer(self, model: ModelId, *, is_own: bool = False) -> None:
        """The model is new, or may be offered room once more; `is_own`: for a reason that only this
        node knows."""
        self.forget(model)
        self._to_offer.add(model)
        if is_own:
            self._own.add(model)

    def offer_again(self) -> None:
        """There is room that was not there: every model may be offered some once more."""
        self._to_offer.update(self._view.models)

    async def close(self) -> None:
        await self._tasks.close()

    def _is_our_turn(self, predictor: Predictor) -> bool:
        """Whether those who go first have had their time with this step."""
        now = self._loader.monotonic()
        target, since_s = self._moving.get(predictor.name, (None, now))
        if target != predictor.target:
            since_s = now
        self._moving[predictor.name] = (predictor.target, since_s)
        return now - since_s >= RANK_S * self._loader.rank(predictor.name)

    def _offer(self, predictor: Predictor) -> None:
        """A model that is new here is loaded where there is free room for it, once."""
        model = predictor.active
        if model in self._to_offer:
            self._to_offer.remove(model)
            self._waiting.discard(model)
            if model in self._own or not self._loader.rank(predictor.name):
                self._line[model] = None
                self._fill_some(SOME)
            else:
                self._keep_waiting(model)  # whose turn it is may be gone before a node comes

    def _fill(self, model: ModelId, tries: int) -> None:
        """In a burst of creations the figures of nodes are behind: one turned away tries on."""
        failed = {CopyState.FAILED} if model in self._own else set()
        self._own.discard(model)
        if {copy.state for copy in self._view.copies(model).values()} - failed:
            return
        if self._has_to_wait(model) or not tries:
            return
        if self._load(model, Purpose.FILL, frozenset()):
            self._fills[model] = (tries - 1, self._loader.monotonic() + FILL_S)
        else:
            self._keep_waiting(model)

    def _keep_waiting(self, model: ModelId) -> None:
        """Where no node is ready for it yet, it is offered once more with the first one."""
        record, nodes = self._view.models.get(model), self._view.nodes.values()
        if record is None:
            return
        source = record.common_source
        if any(offered.supports(source) for offered in ready_offers(nodes)):
            return
        ready = frozenset(ready_offers(nodes))
        self._ready = self._ready & ready if self._waiting else ready
        self._to_offer.add(model)
        self._waiting.add(model)

    def _has_to_wait(self, model: ModelId) -> bool:
        """Whether it is for a known runtime of which no node is ready yet.

        A model that never was Loaded is reason enough to start one.
        """
        record = self._view.models.get(model)
        if record is None:
            return False
        runtimes = pending(record.common_source, self._view.nodes, self._view.runtimes)
        if runtimes:
            self._keep_waiting(model)
            predictors = [self._view.predictors[name] for name in self._view.names(model)]
            if not all(predictor.served for predictor in predictors):
                self._awaiting[model] = tuple(runtime.name for runtime in runtimes)
                self._loader.wish(self._awaiting[model])
        return bool(runtimes)

    def _load(self, model: ModelId, purpose: Purpose, protected: frozenset[ModelId]) -> bool:
        """Whether placement names a node for it."""
        question = self._loader.question(model, fill=purpose is Purpose.FILL)
        decision = None if question is None else decide(question)
        if isinstance(decision, Wait):
            self._loader.wish(decision.runtimes)
        if not isinstance(decision, Load):
            return False
        self._loader.load(model, decision.node, purpose, protected)
        return True

    def _is_loaded(self, model: ModelId) -> bool:
        copies = self._view.copies(model).values()
        return any(copy.state is CopyState.LOADED for copy in copies)

    def _report(self, predictor: Predictor) -> None:
        """One copy is enough to switch to; the others that the model before it had follow."""
        name, model = predictor.name, predictor.target
        if (name, model) in self._reporting:
            return
        self._reporting.add((name, model))
        if _is_moving(predictor):
            self._loader.match(model, predictor.active)
        self._tasks.spawn(self._write(name, model), f"transition {name}")

    async def _write(self, name: PredictorName, model: ModelId) -> None:
        """Tells the store, again and again while it is away and the model is Loaded."""
        pause_s = FIRST_RETRY_S
        try:
            while self._is_loaded(model):
                if await self._is_written(name, model):
                    break
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_S)
        finally:
            self._reporting.discard((name, model))

    async def _is_written(self, name: PredictorName, model: ModelId) -> bool:
        try:
            evidence = await self._evidence(model)
            if evidence is None:
                return False
            event = ModelLoaded(model)
            await advance(self._registry, name, event, self._now, evidence=(evidence,))
        except Conflict:
            return False  # that copy has moved on
        except Unavailable as error:
            log.warning("transition not written", extra={"cause": str(error)})
            return False
        return True

    async def _evidence(self, model: ModelId) -> Check | None:
        """That a copy stands in the store as Loaded; None where none does, or not yet.

        A report may come late, when the model was given up and is wanted again meanwhile.
        """
        for copy in tuple(self._view.copies(model).values()):
            if copy.state is CopyState.LOADED:
                key = records.copy_key(model, copy.node)
                entry = await self._registry.get(key)
                if entry is not None and _says_loaded(key, entry.value):
                    return Unchanged(key, entry.revision)
        return None


def _says_loaded(key: str, value: bytes) -> bool:
    try:
        record = records.decode(key, value)
    except records.Unreadable:
        return False
    return isinstance(record, CopyRecord) and record.state is CopyState.LOADED


def _is_moving(predictor: Predictor) -> bool:
    return predictor.active != predictor.target
