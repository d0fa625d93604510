"""Clients that ask every two seconds whether a node lives, also when they have nothing else to say.

A server that does not permit it ends the connection (GOAWAY, too_many_pings) after three pings.
"""

import asyncio

import grpc.aio
import psutil
import pytest

from tests.support.mesh_client import KEEPALIVE_OPTIONS
from tests.support.mesh_stand import INTERNAL, PUBLIC, MakeMesh, MeshNode

SHORT_S = 15.0
LONG_S = 65.0
CONNECT_S = 5.0
# One connection for the whole test.
NEVER_OF_AGE = ("--connection-age", "3600")
OPTIONS = (*KEEPALIVE_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
READY = grpc.ChannelConnectivity.READY


async def test_pings_without_calls_are_permitted(make_mesh: MakeMesh, is_long: bool):
    async with make_mesh(nodes=1, options=NEVER_OF_AGE) as stand:
        [node] = stand.nodes
        async with (
            grpc.aio.insecure_channel(node.public, options=OPTIONS) as public,
            grpc.aio.insecure_channel(node.internal, options=OPTIONS) as internal,
        ):
            for channel in (public, internal):
                async with asyncio.timeout(CONNECT_S):
                    await channel.channel_ready()
            before = _connections(node)
            async with asyncio.TaskGroup() as group:
                for channel in (public, internal):
                    group.create_task(_stays(channel, LONG_S if is_long else SHORT_S))
            assert _connections(node) == before
            assert {port for _, port in before} == {PUBLIC, INTERNAL}


async def _stays(channel: grpc.aio.Channel, for_s: float) -> None:
    """It keeps its connection."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(for_s):
            await channel.wait_for_state_change(READY)


def _connections(node: MeshNode) -> set[tuple[int, int]]:
    """The ports here and there of all that lead to the node's gRPC servers."""
    found = [each for each in psutil.Process().net_connections("tcp") if each.raddr]
    there = [each for each in found if each.raddr.ip.endswith(node.host)]
    ports = {(each.laddr.port, each.raddr.port) for each in there}
    return {(own, other) for own, other in ports if other in (PUBLIC, INTERNAL)}
