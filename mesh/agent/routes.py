"""The table of routes: the Loaded copies behind each Predictor that can be reached from here.

The copy on this node comes first. Copies of nodes that drain are used only where there is no other.
"""

from collections.abc import Callable
from weakref import WeakValueDictionary

from mesh.agent.copy import Copy
from mesh.agent.reach import Reach
from mesh.agent.remote import RemoteCopy
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.records import CopyState, NodeState
from mesh.core.view import View

Route = tuple[Copy | RemoteCopy, ...]


class Routes:
    """`table` is what the router reads; `find` gives the copy of a model on this node."""

    def __init__(
        self, own: NodeId, view: View, reach: Reach, find: Callable[[ModelId], Copy | None]
    ) -> None:
        self.table: dict[str, Route] = {}
        self._own = own
        self._view = view
        self._reach = reach
        self._find = find
        # Each is kept by the routes to it, and by the calls that it has in flight.
        self._remote: WeakValueDictionary[tuple[ModelId, NodeId], RemoteCopy]
        self._remote = WeakValueDictionary()

    def renew(self, name: PredictorName) -> None:
        """Makes the route of a name what the view says; none where nobody serves it."""
        predictor = self._view.predictors.get(name)
        route = () if predictor is None else self.to(predictor.active)
        if route:
            self.table[name] = route
        else:
            self.table.pop(name, None)

    def to(self, model: ModelId) -> Route:
        """The Loaded copies of a model that can be reached, in order of preference."""
        local = self._find(model)
        here = (local,) if local is not None and local.is_loaded else ()
        others = self._others(model)
        if self._is_draining(self._own) and others:
            return others
        return here + others

    def open_to(self, node: NodeId) -> tuple[RemoteCopy, ...]:
        """The copies there with calls of this node's that have not ended."""
        return tuple(copy for copy in self._remote.values() if copy.node == node and copy.in_flight)

    def _others(self, model: ModelId) -> Route:
        nodes = sorted(
            node
            for node, copy in self._view.copies(model).items()
            if copy.state is CopyState.LOADED and self._is_usable(node)
        )
        staying = [node for node in nodes if not self._is_draining(node)]
        return tuple(self._remote_copy(model, node) for node in staying or nodes)

    def _is_usable(self, node: NodeId) -> bool:
        record = self._view.nodes.get(node)
        is_other = node != self._own and not self._reach.is_down(node)
        return is_other and record is not None and bool(record.address)

    def _is_draining(self, node: NodeId) -> bool:
        record = self._view.nodes.get(node)
        return record is not None and record.state is NodeState.DRAINING

    def _remote_copy(self, model: ModelId, node: NodeId) -> RemoteCopy:
        address = self._view.nodes[node].address
        copy = self._remote.get((model, node))
        if copy is None or copy.address != address:
            copy = self._remote[model, node] = RemoteCopy(model, node, address)
        return copy
