"""What administrators ask of nodes, whichever node they ask: another node is called for it.

A call and not a record in the store, so that who asks hears whether it was done, that it works
while the store is away, and that nothing is left over where it was not done.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from mesh.agent.engine import Node
from mesh.agent.leave import is_elsewhere
from mesh.core.errors import ModelNotFound, NoSuchResource, Unavailable
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.records import CopyState
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc

CALL_LIMIT_S = 5.0
Channels = Callable[[str], grpc.aio.Channel]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Where a failure was forgotten, and which nodes with one did not answer."""

    nodes: tuple[NodeId, ...]
    unreachable: tuple[NodeId, ...]


class Administration:
    """`channel` gives the channel to another node's address; whoever made it closes it."""

    def __init__(self, node: Node, channel: Channels) -> None:
        self._node = node
        self._channel = channel

    async def drain(
        self, node: NodeId, *, is_waiting: bool, is_passed_on: bool = False
    ) -> pb.DrainResponse:
        """Has a node take nothing new, and hand over; `is_waiting`: returns once it has, however
        long that takes. Raises NoSuchResource, Unavailable."""
        if not self._is_own(node, is_passed_on=is_passed_on):
            request = pb.DrainRequest(node=node, is_passed_on=True, wait=is_waiting)
            limit_s = None if is_waiting else CALL_LIMIT_S
            answer: pb.DrainResponse = await _answered(
                self._stub(node).Drain, request, node, limit_s
            )
            return answer
        if not is_waiting:
            self._node.drain()
            return pb.DrainResponse()
        is_handed_over = await self._node.leave(math.inf)
        return pb.DrainResponse(is_handed_over=is_handed_over, kept=sorted(self._kept()))

    def _kept(self) -> Iterable[ModelId]:
        """What is Loaded here, and on no node that stays."""
        for copy in self._node.holdings:
            if copy.is_loaded and not is_elsewhere(self._node, copy.id):
                yield copy.id

    def models_of(self, name: PredictorName) -> tuple[ModelId, ...]:
        """The models of a Predictor. Raises ModelNotFound."""
        predictor = self._node.view.predictors.get(name)
        if predictor is None:
            raise ModelNotFound(name)
        return tuple(dict.fromkeys((predictor.target, predictor.active)))

    async def forget(
        self, models: Iterable[ModelId], node: NodeId | None = None, *, is_passed_on: bool = False
    ) -> Forgotten:
        """Forgets that these failed, on one node or on all. Raises NoSuchResource."""
        if node is not None:
            self._is_own(node, is_passed_on=is_passed_on)
        failed = [
            (model, place)
            for model in models
            for place in self._places(model)
            if node in (None, place)
        ]
        done: set[NodeId] = set()
        async with asyncio.TaskGroup() as group:
            for model, place in failed:
                group.create_task(self._forget(model, place, done))
        left = {place for _, place in failed} - done
        return Forgotten(tuple(sorted(done)), tuple(sorted(left)))

    def _places(self, model: ModelId) -> Iterable[NodeId]:
        """The nodes that remember a failure: of nodes that are gone all do."""
        if self._node.has_failed_before(model):
            return tuple(self._node.view.nodes)
        copies = self._node.view.copies(model).values()
        return [copy.node for copy in copies if copy.state is CopyState.FAILED]

    async def _forget(self, model: ModelId, node: NodeId, done: set[NodeId]) -> None:
        try:
            if self._is_own(node):
                self._node.forgive(model)
            else:
                request = pb.ForgetFailureRequest(model=model, node=node, is_passed_on=True)
                await _answered(self._stub(node).ForgetFailure, request, node)
        except (Unavailable, NoSuchResource):
            return
        done.add(node)

    def _is_own(self, node: NodeId, *, is_passed_on: bool = False) -> bool:
        """Whether this node is meant. Raises NoSuchResource where there is none such."""
        if node == self._node.identity.id:
            return True
        if is_passed_on or node not in self._node.view.nodes:
            raise NoSuchResource("node", node)
        return False

    def _stub(self, node: NodeId) -> Any:
        address = self._node.view.nodes[node].address
        if not address:
            raise Unavailable(f"node {node!r} has no address")
        return pb_grpc.ManagementStub(self._channel(address))


async def _answered(
    call: Any, request: Any, node: NodeId, limit_s: float | None = CALL_LIMIT_S
) -> Any:
    try:
        return await call(request, timeout=limit_s)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            raise NoSuchResource("node", node) from error
        raise Unavailable(f"node {node!r} does not answer") from error
