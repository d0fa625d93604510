"""What this node does for another one that asks it to load a model."""

from dataclasses import replace
from typing import Any, Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.holdings import Holdings, Identity
from mesh.agent.signals import Signals, model_signal
from mesh.core import copies as life
from mesh.core.errors import ModelLoadFailed
from mesh.core.ids import ModelId, NodeId, Revision
from mesh.core.placement import Load, Question, Refuse, Serve, Wait, decide
from mesh.core.records import CopyRecord, NodeRecord
from mesh.core.view import View
from mesh.peers.port import Ask, FailedThere, LoadedThere, NotThere, Outcome
from mesh.registry.follow import Follower


class Host(Protocol):
    """The engine, as far as this is concerned."""

    view: View
    signals: Signals
    identity: Identity
    holdings: Holdings
    follower: Follower[Any]
    has_left: bool

    async def fresh(self) -> None: ...

    async def catch_up(self, revision: Revision) -> None: ...

    def question(
        self, model: ModelId, *, fill: bool = False, extra: bool = False
    ) -> Question | None: ...


async def ensure_loaded(ask: Ask, host: Host) -> Outcome:
    """Loads the model here, once, if this node is fit for it; pins the copy while it is waited for.

    Where to load was decided by who asks; here it is checked against what this node knows.
    """
    if host.has_left:
        return NotThere("the node has left", host.follower.revision)
    await host.fresh()
    await host.catch_up(ask.revision)
    purpose = Purpose(ask.purpose)
    pinned: Copy | None = None
    has_begun = False
    try:
        while True:
            copy = host.holdings.get(ask.model)
            if copy is not None and (outcome := _outcome(copy, host)) is not None:
                return outcome
            if copy is None or isinstance(copy.state, life.Failed):
                refusal = "it was given up" if has_begun else _begin(ask, purpose, host)
                if refusal:
                    return NotThere(refusal, host.follower.revision)
                has_begun = True
                continue
            if copy is not pinned:
                copy.pin()
                if pinned is not None:
                    pinned.unpin()
                pinned = copy
            if purpose is Purpose.USE:
                host.holdings.want(copy)
            await host.signals.wait(model_signal(ask.model))
    finally:
        if pinned is not None:
            pinned.unpin()


def _outcome(copy: Copy, host: Host) -> Outcome | None:
    match copy.state:
        case life.Loaded(size_bytes=size_bytes, since_s=since_s):
            return LoadedThere(size_bytes, since_s)
        case life.Failed(reason=reason, since_s=since_s):
            question = _own_question(copy.id, host)
            if question is None or isinstance(decide(question), Refuse):
                return FailedThere(reason, since_s)
    return None


def _begin(ask: Ask, purpose: Purpose, host: Host) -> str:
    """Starts the copy; why not, where this node is not fit."""
    question = _own_question(ask.model, host, fill=not purpose.may_evict)
    if question is None:
        return "its backing model is not known here"
    match decide(question):
        case Load():
            host.holdings.start(ask.model, purpose, ask.protected, ask.used_s)
            return ""
        case Refuse(error=error):
            return error.cause if isinstance(error, ModelLoadFailed) else error.message
        case Serve() | Wait():
            return ""


def _own_question(model: ModelId, host: Host, *, fill: bool = False) -> Question | None:
    """Placement, asked about this node alone."""
    question = host.question(model, fill=fill)
    if question is None:
        return None
    own = host.identity.id
    nodes: dict[NodeId, NodeRecord] = {own: host.view.nodes[own]}
    copies: dict[NodeId, CopyRecord] = {
        node: copy for node, copy in question.copies.items() if node == own
    }
    return replace(
        question, copies=copies, nodes=nodes, excluded=frozenset(), extra=False, runtimes={}
    )
