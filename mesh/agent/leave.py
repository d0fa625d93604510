"""Leaving: what this node was used for of late is loaded elsewhere before it goes."""

import asyncio
import logging
from typing import Protocol

from mesh.agent.copy import Copy, Purpose
from mesh.agent.errands import Errand
from mesh.agent.holdings import Holdings, Identity
from mesh.agent.resolve import Hold
from mesh.core.ids import ModelId, NodeId
from mesh.core.placement import Decision, Load, Question, Wait, decide
from mesh.core.records import CopyState, NodeState
from mesh.core.view import View
from mesh.ops.clock import Clock

log = logging.getLogger(__name__)

# Models that were not used for longer load on their next use.
RECENT_S = 3_600.0
AT_ONCE = 4
# So long those wait for which there is no room: in a rolling restart the node that left before this
# one is back, but not everybody knows it yet.
PATIENCE_S = 3.0
LOOK_S = 0.1


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
    """The most recently used first, a few at once; also those that were still loading."""
    since_s = clock.monotonic_s() - RECENT_S
    patient_until_s = clock.monotonic_s() + PATIENCE_S
    seen: set[ModelId] = set()
    handed: set[ModelId] = set()

    async def carry() -> None:
        while (copy := _next(host, seen, since_s)) is not None:
            seen.add(copy.id)
            used_s = clock.wall_s() - clock.monotonic_s() + _used_s(copy)
            while not is_elsewhere(host, copy.id):
                if await _hand_over(host, copy.id, used_s):
                    handed.add(copy.id)
                elif clock.monotonic_s() < patient_until_s and _has_company(host):
                    await asyncio.sleep(LOOK_S)
                else:
                    break

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(carry())
    log.info("handed over", extra={"models": len(handed)})


def _next(host: Host, seen: set[ModelId], since_s: float) -> Copy | None:
    copies = (copy for copy in host.holdings if copy.is_loaded and copy.id not in seen)
    recent = (copy for copy in copies if _used_s(copy) > since_s)
    return max(recent, key=_used_s, default=None)


async def _hand_over(host: Host, model: ModelId, used_s: float) -> bool:
    """Whether another node has it now; False where none can, or the one that was asked did not."""
    node = _target(_decide(host, model))
    if node is None or node == host.identity.id:
        return False
    hold = host.load(model, node, Purpose.EXTRA, used_s=used_s)
    if not isinstance(hold, Errand):
        return False
    hold.pin()
    try:
        await hold.done.wait()
    finally:
        hold.unpin()
    return is_elsewhere(host, model)


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


def _target(decision: Decision | None) -> NodeId | None:
    match decision:
        case Load(node=node):
            return node
        case Wait(nodes=(node, *_)):  # it is loading there
            return node
    return None


def is_elsewhere(host: Host, model: ModelId) -> bool:
    """Whether another node that stays has it Loaded."""
    own = host.identity.id
    others = [copy for node, copy in host.view.copies(model).items() if node != own]
    return any(copy.state is CopyState.LOADED and _stays(host, copy.node) for copy in others)


def _has_company(host: Host) -> bool:
    own = host.identity.id
    nodes = host.view.nodes.values()
    return any(node.id != own and node.runtime is not None for node in nodes)


def _stays(host: Host, node: NodeId) -> bool:
    record = host.view.nodes.get(node)
    return record is not None and record.state is NodeState.READY


def _used_s(copy: Copy) -> float:
    return copy.entry.used_s if copy.entry is not None else 0.0
