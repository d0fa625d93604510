"""Answers the router's one question: who serves this name, once somebody does."""

from collections.abc import Mapping
from typing import Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.signals import Signals
from mesh.core.errors import ModelNotFound, Unavailable
from mesh.core.ids import ModelId, PredictorName
from mesh.core.placement import Decision, Load, Question, Refuse, Serve, Wait, decide
from mesh.core.view import View


class Copies(Protocol):
    """The copies of this node, and how one is started."""

    @property
    def routes(self) -> Mapping[str, tuple[Copy, ...]]: ...

    @property
    def is_draining(self) -> bool: ...

    def question(self, model: ModelId) -> Question | None: ...

    def copy(self, model: ModelId) -> Copy | None: ...

    def start(
        self, model: ModelId, decision: Load, purpose: Purpose, protected: frozenset[ModelId]
    ) -> None: ...

    def monotonic(self) -> float: ...

    def want(self, copy: Copy) -> None:
        """A request waits for this copy, which may evict others from now on."""
        ...


async def resolve(name: str, view: View, copies: Copies, signals: Signals) -> Copy:
    """A Loaded copy of the active model, entered once so that it stays: the caller must leave it.

    Waits as long as a copy is on its way; raises what `core.placement` refuses with, ModelNotFound.
    """
    pinned: Copy | None = None
    try:
        while True:
            if route := copies.routes.get(name):
                route[0].enter(copies.monotonic())
                return route[0]
            wanted = _want(name, view, copies)
            if wanted is not pinned:
                if wanted is not None:
                    wanted.pin()
                if pinned is not None:
                    pinned.unpin()
                pinned = wanted
            # Nothing is awaited between the decision and this, so that no change is missed.
            await signals.wait(name)
    finally:
        if pinned is not None:
            pinned.unpin()


def _want(name: str, view: View, copies: Copies) -> Copy | None:
    """Starts a load where one is needed; the copy on this node that is worth waiting for."""
    predictor = view.predictors.get(PredictorName(name))
    if predictor is None:
        raise ModelNotFound(name)
    question = copies.question(predictor.active)
    if question is None:
        return None
    _act(predictor.active, decide(question), copies)
    copy = copies.copy(predictor.active)
    if copy is not None:
        copies.want(copy)
    return copy


def _act(model: ModelId, decision: Decision, copies: Copies) -> None:
    match decision:
        case Load():
            if copies.is_draining:
                raise Unavailable("this node is draining")
            copies.start(model, decision, Purpose.USE, frozenset())
        case Refuse(error=error):
            raise error
        case Serve() | Wait():
            pass
