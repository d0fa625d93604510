"""What nodes have been used for so far: each says it of itself, the asked one collects it."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from mesh.agent.copy import Copy
from mesh.agent.engine import Node
from mesh.core.ids import NodeId
from mesh.ops.clock import monotonic_s
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc

# Who asks wants the next figures soon: a node that takes longer is named.
CALL_LIMIT_S = 2.0
AT_ONCE = 1_000
Channels = Callable[[str], grpc.aio.Channel]


class Usages:
    """`channel` gives the channel to another node's address; whoever made it closes it."""

    def __init__(self, node: Node, channel: Channels) -> None:
        self._node = node
        self._channel = channel

    async def answer(self, *, is_passed_on: bool = False) -> pb.UsageResponse:
        """Of all nodes; of this one alone where another one asks for it."""
        own = self._node.identity.id
        found = {own: await self._own()}
        if is_passed_on:
            return pb.UsageResponse(nodes=found.values())
        others = [node for node in self._node.view.nodes if node != own]
        async with asyncio.TaskGroup() as group:
            for node in others:
                group.create_task(self._ask(node, found))
        return pb.UsageResponse(
            nodes=[found[node] for node in sorted(found)],
            unreachable=sorted(set(others) - set(found)),
        )

    async def _own(self) -> pb.NodeUsage:
        cache = self._node.holdings.room.cache
        usage = pb.NodeUsage(
            node=self._node.identity.id,
            monotonic_s=monotonic_s(),
            used_bytes=cache.used_bytes,
            capacity_bytes=cache.capacity_bytes,
        )
        for number, copy in enumerate(self._node.holdings):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # requests go on meanwhile
            usage.copies.append(_copy(copy))
        return usage

    async def _ask(self, node: NodeId, found: dict[NodeId, pb.NodeUsage]) -> None:
        """Puts what a node says of itself to the others; nothing where it says nothing."""
        record = self._node.view.nodes.get(node)
        if record is None or not record.address:
            return
        call: Any = pb_grpc.ManagementStub(self._channel(record.address)).Usage
        try:
            answer = await call(pb.UsageRequest(is_passed_on=True), timeout=CALL_LIMIT_S)
        except grpc.aio.AioRpcError:
            return
        # At the address of a node that is gone there may be another one.
        found.update((node, usage) for usage in answer.nodes if usage.node == node)


def _copy(copy: Copy) -> pb.CopyUsage:
    calls = list(copy.times.counts)
    while calls and not calls[-1]:
        calls.pop()
    return pb.CopyUsage(
        model=copy.id,
        size_bytes=copy.entry.size_bytes if copy.entry else 0,
        requests=copy.uses,
        in_flight=copy.in_flight,
        calls=calls,
    )
