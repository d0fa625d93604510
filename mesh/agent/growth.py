"""Copies that follow use: each node looks at its own Loaded copies, and acts as `core.demand` says.

Nobody counts for all: a holder knows its own requests, which are a fair share of all of them. The
first holder in rendezvous order has more copies loaded, the last one gives its own up.
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
from mesh.core.records import CopyState, NodeState
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
                self.grow(copy.id, by, reason, Purpose.AGAIN if fill else Purpose.EXTRA, fill=fill)
            case Shrink(reason=reason):
                log.info("copy given up", extra={"model": copy.id, "reason": reason})
                copy.send(life.Leave())

    def _situation(self, model: ModelId, rps: float, in_flight: float) -> Situation:
        view, own = self._host.view, self._host.identity.id
        copies = view.copies(model).values()
        loaded = self._loaded(model)
        order = rendezvous(model, loaded)
        most = max((view.predictors[name].max_copies for name in view.names(model)), default=0)
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
            max_copies=most,
        )

    def _is_needed(self, model: ModelId) -> bool:
        """Whether an eviction here would leave fewer copies than a Predictor asks for."""
        least = self._least(model)
        return least > 0 and len(self._loaded(model)) <= least

    def _least(self, model: ModelId) -> int:
        view = self._host.view
        return max((view.predictors[name].min_copies for name in view.names(model)), default=0)

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

    def grow(self, model: ModelId, by: int, reason: str, purpose: Purpose, *, fill: bool) -> None:
        """Has up to so many more copies loaded, as far as there is room for one more; `fill`: that
        is free."""
        asked: frozenset[NodeId] = frozenset()  # the view has what they say a little later
        for _ in range(by):
            question = self._host.question(model, fill=fill, extra=True)
            if question is None:
                return
            decision = decide(replace(question, excluded=question.excluded | asked))
            if not isinstance(decision, Load):
                return
            fields = {"model": model, "peer": decision.node, "reason": reason}
            log.info("one more copy", extra=fields)
            self._host.load(model, decision.node, purpose)
            asked |= {decision.node}
