"""Records of the store on their way into the view."""

import asyncio

from mesh.agent.intake import Reading, take_in
from mesh.core.ids import ModelId, NodeId, Revision
from mesh.core.records import CopyState
from mesh.core.view import View
from mesh.registry.follow import Follower
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Change, Put
from mesh.wire import records
from tests.support.builders import copy, model_of, node, predictor


def test_node_that_goes_takes_copies_along_that_the_store_never_named():
    view = View()
    view.put(predictor("p", active="p-1"))
    view.put(node("other", address="there"))
    view.put(copy("p-1", CopyState.LOADED, "other"))  # as a peer said, while the store was away
    gone = Change(records.node_key(NodeId("other")), None, Revision(2))
    taken = take_in(view, (gone,), own=NodeId("own"), going=lambda _: None, changing=lambda _: None)
    assert view.copies(ModelId("p-1")) == {}
    assert taken.touched == {"p"}


async def test_keys_share_their_texts_with_the_records_of_a_listing():
    model = model_of("p")
    pair = [predictor("p", active=model.id), model]
    registry = MemoryRegistry()
    keys = [records.predictor_key(pair[0].name), records.model_key(pair[1].id)]
    await registry.commit(
        [Put(key, records.encode(it)) for key, it in zip(keys, pair, strict=True)]
    )
    told: list[Change] = []
    follower = Follower(registry, Reading, told.extend)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        running = group.create_task(follower.run())
        await follower.wait_synced()
        running.cancel()
    kept = {id(rest) for rests in follower._known._folders.values() for rest in rests}
    read = {change.key: change.value for change in told}
    assert kept == {id(read[keys[0]].name), id(read[keys[1]].id)}
    assert (
        len({id(it) for rests in follower._known._folders.values() for it in rests.values()}) == 1
    )
