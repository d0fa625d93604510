"""Copies that follow use: each node looks at its own Loaded copies, and acts as `core.demand` says.

Nobody counts for all: a holder knows its own requests, which are a fair share of all of them. The
first holder in rendezvous order has more copies loaded, the last one gives its own up. Only to a
model that takes over from another one, of which nobody knows the use yet, copies come by `match`.
"""

import logging
from dataclasses import dataclass, replace
from typing import Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.holdings import Holdings, Identity
from mesh.core import copies as life
from mesh.core.demand import DEFAULTS, Grow, Past, Shrink, Situation, Thresholds, born, look
from mesh.core.ids import ModelId, NodeId
from mesh.core.placement import Load, Question, decide
from mesh.core.records import CopyRecord, CopyState, NodeState
from mesh.core.rendezvous import rendezvous
from mesh.core.view import View

log = logging.getLogger(__name__)


class Host(Protocol):
    """The engine, as far as this is concerned."""

    view: View
    identity: Identity
    holdings: Holdings

    def question(
        self, model: ModelId, *, fill: bool = False, extra: bool = False
    ) -> Question | None: ...

    def load(self, model: ModelId, node: NodeId, purpose: Purpose) -> object: ...

    def is_down(self, node: NodeId) -> bool: ...

    def monotonic(self) -> float: ...


@dataclass(slots=True)
class _Watched:
    """One copy: what `demand` remembers of it, and where its counts stood at the last look.

    The first look counts the requests that waited for its load too.
    """

    copy: Copy
    past: Past
    uses: int = 0
    in_flight: float = 0.0
    samples: int = 0


class Growth:
    """`sample` it each second; it looks each `thresholds.look_s`."""

    def __init__(self, host: Host, thresholds: Thresholds = DEFAULTS) -> None:
        self._host = host
        self._thresholds = thresholds
        self._watched: dict[ModelId, _Watched] = {}
        self._looked_s = host.monotonic()

    def sample(self) -> None:
        """Counts what is in flight, and looks when it is time."""
        now = self._host.monotonic()
        loaded = {copy.id: copy for copy in self._host.holdings if copy.is_loaded}
        for model in self._watched.keys() - loaded.keys():
            del self._watched[model]
        for model, copy in loaded.items():
            watched = self._watched.get(model)
            if watched is None or watched.copy is not copy:
                again = copy.purpose is Purpose.AGAIN
                watched = self._watched[model] = _Watched(copy, born(now=now, again=again))
            watched.in_flight += copy.in_flight
            watched.samples += 1
        self._host.holdings.room.kept = frozenset(filter(self._is_needed, loaded))
        if now - self._looked_s >= self._thresholds.look_s:
            over_s, self._looked_s = now - self._looked_s, now
            for watched in tuple(self._watched.values()):
                self._look(watched, over_s, now)

    def match(self, model: ModelId, before: ModelId) -> None:
        """Has a model that takes over as many copies as the one before it, as far as its Predictors
        allow so many and nodes announce free room."""
        wanted, most = len(self._loaded(before)), self._most(model)
        if most:
            wanted = min(wanted, max(most, self._least(model)))
        states = [copy.state for copy in self._host.view.copies(model).values()]
        there = states.count(CopyState.LOADED) + states.count(CopyState.LOADING)
        reason = "the model before it had as many"
        self._grow(model, wanted - there, reason, Purpose.EXTRA, fill=True)

    def _look(self, watched: _Watched, over_s: float, now: float) -> None:
        copy = watched.copy
        rps = (copy.uses - watched.uses) / over_s
        in_flight = watched.in_flight / max(1, watched.samples)
        watched.uses, watched.in_flight, watched.samples = copy.uses, 0.0, 0
        situation = self._situation(copy.id, rps, in_flight)
        watched.past, verdict = look(watched.past, situation, now=now, thresholds=self._thresholds)
        match verdict:
            case Grow(to=to, reason=reason, fill=fill):
                by = to - situation.loaded - situation.loading
                self._grow(copy.id, by, reason, Purpose.AGAIN if fill else Purpose.EXTRA, fill=fill)
            case Shrink(reason=reason):
                log.info("copy given up", extra={"model": copy.id, "reason": reason})
                copy.send(life.Leave())

    def _situation(self, model: ModelId, rps: float, in_flight: float) -> Situation:
        view, own = self._host.view, self._host.identity.id
        copies = view.copies(model).values()
        loaded = self._loaded(model)
        order = rendezvous(model, loaded)
        fit = sum(
            node.runtime is not None and self._counts(node.id) for node in view.nodes.values()
        )
        return Situation(
            rps=rps,
            in_flight=in_flight,
            loaded=len(loaded),
            loading=sum(copy.state is CopyState.LOADING for copy in copies),
            rank=order.index(own) if own in order else len(order),
            fit=fit,
            min_copies=self._least(model),
            max_copies=self._most(model),
        )

    def _is_needed(self, model: ModelId) -> bool:
        """Whether an eviction here would leave fewer copies than a Predictor asks for."""
        least = self._least(model)
        return least > 0 and len(self._loaded(model)) <= least

    def _least(self, model: ModelId) -> int:
        view = self._host.view
        return max((view.predictors[name].min_copies for name in view.names(model)), default=0)

    def _most(self, model: ModelId) -> int:
        """0: any number."""
        view = self._host.view
        return max((view.predictors[name].max_copies for name in view.names(model)), default=0)

    def _loaded(self, model: ModelId) -> list[NodeId]:
        """The nodes whose Loaded copies count."""
        copies = self._host.view.copies(model).values()
        return [
            copy.node
            for copy in copies
            if copy.state is CopyState.LOADED and self._counts(copy.node)
        ]

    def _counts(self, node: NodeId) -> bool:
        record = self._host.view.nodes.get(node)
        is_there = record is not None and record.state is not NodeState.DRAINING
        return is_there and not self._host.is_down(node)

    def _grow(self, model: ModelId, by: int, reason: str, purpose: Purpose, *, fill: bool) -> None:
        """Has so many more copies loaded, one to a node; fewer where nodes announce no room for
        one. `fill`: room that is free."""
        # What those that were asked say is in the view a little later.
        asked: dict[NodeId, CopyRecord] = {}
        for _ in range(by):
            question = self._host.question(model, fill=fill, extra=True)
            if question is None:
                return
            decision = decide(replace(question, copies={**question.copies, **asked}))
            if not isinstance(decision, Load):
                return
            node = decision.node
            log.info("one more copy", extra={"model": model, "peer": node, "reason": reason})
            self._host.load(model, node, purpose)
            asked[node] = CopyRecord(model, node, CopyState.LOADED, question.now)
