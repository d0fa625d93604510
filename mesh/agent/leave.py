"""Leaving: what this node was used for of late is loaded elsewhere before it goes."""

import asyncio
import logging
from typing import Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.errands import Errand
from mesh.agent.holdings import Holdings, Identity
from mesh.agent.resolve import Hold
from mesh.core.ids import ModelId, NodeId
from mesh.core.placement import Decision, Load, Question, decide
from mesh.core.records import CopyState, NodeState
from mesh.core.view import View
from mesh.ops.clock import Clock

log = logging.getLogger(__name__)

# Models that were not used for longer load on their next use.
RECENT_S = 3_600.0
AT_ONCE = 4


class Host(Protocol):
    """The engine, as far as this is concerned."""

    view: View
    holdings: Holdings
    identity: Identity

    def question(
        self, model: ModelId, *, fill: bool = False, extra: bool = False
    ) -> Question | None: ...

    def load(
        self, model: ModelId, node: NodeId, purpose: Purpose, *, used_s: float
    ) -> Hold | None: ...


async def hand_over(host: Host, clock: Clock) -> None:
    """The most recently used first, a few at once."""
    since_s = clock.monotonic_s() - RECENT_S
    recent = [copy for copy in host.holdings if copy.is_loaded and _used_s(copy) > since_s]
    recent.sort(key=_used_s)
    handed = 0

    async def carry() -> None:
        nonlocal handed
        while recent:
            copy = recent.pop()
            used_s = clock.wall_s() - clock.monotonic_s() + _used_s(copy)
            handed += await _hand_over(host, copy.id, used_s)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(carry())
    log.info("handed over", extra={"models": handed})


async def _hand_over(host: Host, model: ModelId, used_s: float) -> bool:
    """Whether another node was made to load it; not where one serves it already, or none can."""
    own = host.identity.id
    others = [copy for node, copy in host.view.copies(model).items() if node != own]
    if any(copy.state is CopyState.LOADED and _stays(host, copy.node) for copy in others):
        return False
    decision = _decide(host, model)
    if not isinstance(decision, Load) or decision.node == own:
        return False
    hold = host.load(model, decision.node, Purpose.EXTRA, used_s=used_s)
    if not isinstance(hold, Errand):
        return False
    await hold.done.wait()
    return True


def _decide(host: Host, model: ModelId) -> Decision | None:
    """Free room first, however busy its node is: what is evicted for it was in use as well."""
    for is_fill in (True, False):
        question = host.question(model, fill=is_fill, extra=True)
        if question is None:
            return None
        decision = decide(question)
        if isinstance(decision, Load):
            return decision
    return decision


def _stays(host: Host, node: NodeId) -> bool:
    record = host.view.nodes.get(node)
    return record is not None and record.state is NodeState.READY


def _used_s(copy: Copy) -> float:
    return copy.entry.used_s if copy.entry is not None else 0.0
