"""Records of the store on their way into the view."""

from mesh.agent.intake import take_in
from mesh.core.ids import ModelId, NodeId, Revision
from mesh.core.records import CopyState
from mesh.core.view import View
from mesh.registry.port import Change
from mesh.wire import records
from tests.support.builders import copy, node, predictor


def test_node_that_goes_takes_copies_along_that_the_store_never_named():
    view = View()
    view.put(predictor("p", active="p-1"))
    view.put(node("other", address="there"))
    view.put(copy("p-1", CopyState.LOADED, "other"))  # as a peer said, while the store was away
    gone = Change(records.node_key(NodeId("other")), None, Revision(2))
    taken = take_in(view, (gone,), own=NodeId("own"), going=lambda _: None)
    assert view.copies(ModelId("p-1")) == {}
    assert taken.touched == {"p"}
