"""What a node believes of others when the store has lost its data."""

import asyncio
from typing import cast

from mesh.agent.doubts import ANNOUNCED_S, ASK_S, Doubts
from mesh.agent.reach import Reach
from mesh.core.ids import NodeId, Revision
from mesh.core.records import CopyState
from mesh.core.view import View
from mesh.registry.port import Change
from mesh.wire import records
from tests.support.builders import copy, node


class Answering:
    """Every node that is asked answers."""

    async def answers(self, node: NodeId, address: str) -> bool:
        return True


class Told:
    """A view of one other node with two copies; `believed` are the keys of what turned out so."""

    def __init__(self) -> None:
        view = View()
        view.put(node("other", address="there"))
        for model in ("kept", "evicted"):
            view.put(copy(model, CopyState.LOADED, "other"))
        self.believed: list[str] = []
        reach = cast(Reach, Answering())
        self.doubts = Doubts(NodeId("own"), view, reach, self._believe)

    def _believe(self, changes: tuple[Change, ...]) -> None:
        self.believed += [change.key for change in changes]


def put(record) -> Change:
    key = (
        records.node_key(record.id)
        if hasattr(record, "id")
        else records.copy_key(record.model, record.node)
    )
    return Change(key, record, Revision(2))


async def test_copies_that_a_node_had_evicted_go_where_it_announced_itself_before_the_listing():
    told = Told()
    kept = copy("kept", CopyState.LOADED, "other")
    gone = records.copy_key(copy("evicted", CopyState.LOADED, "other").model, NodeId("other"))
    told.doubts.reset({records.copy_key(kept.model, NodeId("other")), gone})
    assert told.believed == []  # it may be about to announce them
    told.doubts.sift((put(kept),))
    await asyncio.sleep(ASK_S + ANNOUNCED_S + 0.1)
    assert told.believed == [gone]
    await told.doubts.close()


async def test_copies_go_where_a_node_announces_itself_after_the_listing_without_them():
    told = Told()
    other = node("other", address="there")
    kept = copy("kept", CopyState.LOADED, "other")
    gone = records.copy_key(copy("evicted", CopyState.LOADED, "other").model, NodeId("other"))
    told.doubts.reset(
        {records.node_key(other.id), records.copy_key(kept.model, NodeId("other")), gone}
    )
    await asyncio.sleep(5 * ASK_S)
    assert told.believed == []  # it answers, and has not announced itself yet
    told.doubts.sift((put(other), put(kept)))
    await asyncio.sleep(2 * ASK_S + ANNOUNCED_S)
    assert told.believed == [gone]
    await told.doubts.close()
