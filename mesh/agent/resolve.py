"""Answers the router's one question: who serves this name, once somebody does."""

from collections.abc import Mapping
from typing import Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.errands import Errand
from mesh.agent.remote import RemoteCopy
from mesh.agent.signals import Signals
from mesh.agent.wishes import Longing
from mesh.core.errors import ModelNotFound, Unavailable
from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.placement import Decision, Load, Question, Refuse, Serve, Wait, decide
from mesh.core.view import View

# What a resolution waits for: a copy on this node, what another node was asked for, or a runtime
# that has no node.
Hold = Copy | Errand | Longing


class Loads(Protocol):
    """The copies that this node knows of, and how one is started, here or elsewhere."""

    @property
    def routes(self) -> Mapping[str, tuple[Copy | RemoteCopy, ...]]: ...

    async def fresh(self) -> None:
        """Returns once the view is from now."""
        ...

    def question(self, model: ModelId) -> Question | None: ...

    def resting(self, model: ModelId) -> frozenset[NodeId]:
        """The nodes that turned this model down a moment ago."""
        ...

    def load(self, model: ModelId, node: NodeId, purpose: Purpose) -> Hold | None:
        """Has a node load it, or be sure to; None where there is nothing to hold on to."""
        ...

    def long_for(self, model: ModelId, runtimes: tuple[RuntimeName, ...]) -> Hold:
        """Has it known that a node of one of these is waited for."""
        ...

    def pick(self, route: tuple[Copy | RemoteCopy, ...]) -> Copy | RemoteCopy: ...

    def monotonic(self) -> float: ...


async def resolve(name: str, view: View, loads: Loads, signals: Signals) -> Copy | RemoteCopy:
    """A Loaded copy of the active model, entered once so that it stays: the caller must leave it.

    Waits as long as a copy is on its way; raises what `core.placement` refuses with, ModelNotFound.
    """
    held: Hold | None = None
    await loads.fresh()
    try:
        while True:
            if route := loads.routes.get(name):
                upstream = loads.pick(route)
                upstream.enter(loads.monotonic())
                return upstream
            wanted = _want(name, view, loads)
            if wanted is not held:
                if wanted is not None:
                    wanted.pin()
                if held is not None:
                    held.unpin()
                held = wanted
            # Nothing is awaited between the decision and this, so that no change is missed.
            await signals.wait(name)
    finally:
        if held is not None:
            held.unpin()


def _want(name: str, view: View, loads: Loads) -> Hold | None:
    """Starts a load where one is needed; what is worth waiting for."""
    predictor = view.predictors.get(PredictorName(name))
    if predictor is None:
        raise ModelNotFound(name)
    return want(predictor.active, loads)


def want(model: ModelId, loads: Loads) -> Hold | None:
    """Starts a load of a model that somebody waits for, where one is needed.

    Raises what placement refuses with.
    """
    question = loads.question(model)
    if question is None:
        return None
    return _act(model, decide(question), loads)


def _act(model: ModelId, decision: Decision, loads: Loads) -> Hold | None:
    match decision:
        case Load(node=node):
            return loads.load(model, node, Purpose.USE)
        case Wait(nodes=nodes, reason="loading"):
            return loads.load(model, nodes[0], Purpose.USE)
        case Wait(runtimes=runtimes) if runtimes:
            return loads.long_for(model, runtimes)
        case Refuse(error=error):
            if isinstance(error, Unavailable) and loads.resting(model):
                return None  # asked again as soon as those have rested
            raise error
        case Serve() | Wait():
            return None
