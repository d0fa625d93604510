"""Whether a node is gone, or only its lease: the store alone cannot know.

After an outage of the store leases have run out though nobody died, and a store that came back
empty knows nobody. So when the store stops naming a node, with all its copies, its absence is
believed only once it does not answer either. Until then the view keeps it; when it announces itself
again, what it does not name any more is dropped.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mesh.agent.intake import News
from mesh.agent.reach import Reach
from mesh.core.ids import NodeId, Revision
from mesh.core.records import NodeRecord, NodeState
from mesh.core.view import View
from mesh.ops.tasks import Tasks
from mesh.registry.port import Change
from mesh.wire import records

ASK_S = 1.0
# A node announces itself first and its copies after it, within a few commits.
ANNOUNCED_S = 3.0
_NEVER = Revision(0)


@dataclass(slots=True)
class Doubt:
    """A node that the store has dropped: the deletions that are held back until that is settled."""

    held_back: dict[str, News] = field(default_factory=dict)


class Doubts:
    """`believe` is called with changes that turned out to be so."""

    def __init__(
        self,
        own: NodeId,
        view: View,
        reach: Reach,
        believe: Callable[[tuple[News, ...]], None],
    ) -> None:
        self._own = own
        self._view = view
        self._reach = reach
        self._believe = believe
        self._open: dict[NodeId, Doubt] = {}
        self._tasks = Tasks()

    def sift(self, changes: tuple[News, ...]) -> tuple[News, ...]:
        """The changes of one commit without those that are held back."""
        gone = {node for change in changes if (node := self._gone_node(change))}
        if not gone and not self._open:
            return changes
        for node in gone:
            self._open[node] = Doubt()
            self._tasks.spawn(self._settle(self._view.nodes[node]), f"doubt {node}")
        return tuple(change for change in changes if not self._is_held_back(change))

    def reset(self, missing: Iterable[str]) -> None:
        """Another store, which lacks these keys: nodes among them are doubted."""
        keys = set(missing)
        nodes = [key for key in keys if key.startswith(records.NODES)]
        for key in nodes:
            gone: list[News] = [Change(key, None, _NEVER)]
            node = records.key_parts(key)[1][0]
            gone += [
                Change(records.copy_key(model, NodeId(node)), None, _NEVER)
                for model in self._view.held(NodeId(node))
                if records.copy_key(model, NodeId(node)) in keys
            ]
            if changes := self.sift(tuple(gone)):
                self._believe(changes)
        self._reset_copies(key for key in keys if key.startswith(records.COPIES))

    def _reset_copies(self, missing: Iterable[str]) -> None:
        """Nodes that the new store names already: their copies are about to follow, or are gone."""
        for key in missing:
            node = self._view.nodes.get(NodeId(records.key_parts(key)[1][-1]))
            if node is None or node.id == self._own:
                continue
            if node.id not in self._open:
                self._open[node.id] = Doubt()
                self._tasks.spawn(self._settle(node), f"doubt {node.id}")
            self._open[node.id].held_back[key] = Change(key, None, _NEVER)

    async def close(self) -> None:
        await self._tasks.close()

    def _gone_node(self, change: News) -> NodeId | None:
        """The node that a change removes, if that is to be doubted."""
        prefix, names = records.key_parts(change.key)
        if change.value is not None or prefix != records.NODES or names[0] == self._own:
            return None
        record = self._view.nodes.get(NodeId(names[0]))
        if record is None or not record.address or record.state is NodeState.DRAINING:
            return None
        return None if record.id in self._open else record.id

    def _is_held_back(self, change: News) -> bool:
        prefix, names = records.key_parts(change.key)
        if prefix not in (records.NODES, records.COPIES):
            return False
        doubt = self._open.get(NodeId(names[-1]))
        if doubt is None:
            return False
        if change.value is None:
            doubt.held_back[change.key] = change
            return True
        doubt.held_back.pop(change.key, None)
        return False

    async def _settle(self, node: NodeRecord) -> None:
        doubt = self._open[node.id]
        key = records.node_key(node.id)
        try:
            while True:
                if not await self._reach.answers(node.id, node.address):
                    break
                await asyncio.sleep(ASK_S)
                if key not in doubt.held_back:  # it is back, with its copies about to follow
                    await asyncio.sleep(ANNOUNCED_S)
                    break
        finally:
            del self._open[node.id]
        if doubt.held_back:
            self._believe(tuple(doubt.held_back.values()))
