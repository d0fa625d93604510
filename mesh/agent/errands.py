"""Loads on other nodes that requests, or the mesh itself, wait for here: one an id and node.

An errand lasts as long as somebody wants it; on the other side the copy is pinned meanwhile. What
it learns goes into the view at once, for the store may be slower, or away.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.core.errors import Unavailable
from mesh.core.ids import ModelId, NodeId
from mesh.core.records import CopyRecord, CopyState, NodeRecord
from mesh.ops.tasks import Tasks
from mesh.peers.port import Ask, FailedThere, LoadedThere, NotThere, Outcome, Peers

# How long a node that turned a model down is not asked for it again.
REST_S = 0.2


@dataclass(slots=True, eq=False)
class Errand:
    """One question to another node; `pins`: how many wait for its answer."""

    model: ModelId
    node: NodeId
    pins: int = 0
    is_over: bool = False
    task: asyncio.Task[None] | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def pin(self) -> None:
        self.pins += 1

    def unpin(self) -> None:
        """The last one to leave gives it up; the load there goes on."""
        self.pins -= 1
        if not self.pins and self.task is not None:
            self.task.cancel()


class Errands:
    """`learn` is called with what became of a copy, `ended` when an errand is over.

    `lost` is called with a node that could not be reached.
    """

    def __init__(
        self,
        peers: Peers,
        learn: Callable[[CopyRecord], None],
        ended: Callable[[ModelId], None],
        lost: Callable[[NodeId], None],
    ) -> None:
        self._peers = peers
        self._learn = learn
        self._ended = ended
        self._lost = lost
        self._open: dict[tuple[ModelId, NodeId], Errand] = {}
        self._tasks = Tasks()
        self._resting: dict[ModelId, set[NodeId]] = {}
        self._is_closed = False

    def send(self, node: NodeRecord, ask: Ask) -> Errand:
        """The errand for this model on this node; one that is under way is joined."""
        key = (ask.model, node.id)
        errand = self._open.get(key)
        if errand is None:
            errand = Errand(ask.model, node.id)
            if self._is_closed:
                errand.done.set()
                return errand
            self._open[key] = errand
            run = self._run(errand, node.address, ask)
            errand.task = self._tasks.spawn(run, f"ask {node.id} for {ask.model}")
        return errand

    def resting(self, model: ModelId) -> frozenset[NodeId]:
        """The nodes that turned the model down a moment ago."""
        return frozenset(self._resting.get(model, ()))

    async def close(self) -> None:
        self._is_closed = True
        await self._tasks.close()

    async def _run(self, errand: Errand, address: str, ask: Ask) -> None:
        try:
            outcome = await self._peers.ensure_loaded(address, ask)
        except Unavailable:
            self._lost(errand.node)
        else:
            await self._take(errand, outcome)
        finally:
            del self._open[errand.model, errand.node]
            errand.is_over = True
            errand.done.set()
            if not self._is_closed:
                self._ended(errand.model)

    def _rested(self, model: ModelId, node: NodeId) -> None:
        nodes = self._resting[model]
        nodes.discard(node)
        if not nodes:
            del self._resting[model]

    async def _take(self, errand: Errand, outcome: Outcome) -> None:
        model, node = errand.model, errand.node
        match outcome:
            case LoadedThere(size_bytes=size_bytes, since_s=since_s):
                self._learn(CopyRecord(model, node, CopyState.LOADED, since_s, size_bytes))
            case FailedThere(reason=reason, since_s=since_s):
                self._learn(CopyRecord(model, node, CopyState.FAILED, since_s, reason=reason))
            case NotThere():
                errand.is_over = True
                self._resting.setdefault(model, set()).add(node)
                try:
                    self._ended(model)
                    await asyncio.sleep(REST_S)
                finally:
                    self._rested(model, node)
