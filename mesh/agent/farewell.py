"""The end of a node towards its peers: it stops once none of them has a call open to it.

The store tells them as well that it has left. But a peer that is behind, or that the store cannot
reach, goes on passing calls to it, and a server that stops cancels what has come in. So a node that
has left the store tells each peer itself. The peer sends nothing to it from then on, and answers
once what it had sent before is answered.
"""

import asyncio
from collections.abc import Iterable
from typing import Protocol

from mesh.agent.holdings import Identity
from mesh.agent.reach import Reach
from mesh.agent.remote import RemoteCopy
from mesh.core.errors import Unavailable
from mesh.core.view import View
from mesh.peers.port import Peers

LOOK_S = 0.02


class Host(Protocol):
    """The engine, as far as this is concerned."""

    view: View
    identity: Identity
    reach: Reach


async def bid_farewell(host: Host, peers: Peers, limit_s: float) -> bool:
    """Tells all peers, and returns once they have answered; False where one has not."""
    own = host.identity.id
    addresses = [node.address for node in host.view.nodes.values() if node.id != own]
    told: list[bool] = []

    async def tell(address: str) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await peers.farewell(address, own)
        except (Unavailable, TimeoutError):
            told.append(False)
        else:
            told.append(True)

    async with asyncio.TaskGroup() as group:
        for address in filter(None, addresses):
            group.create_task(tell(address))
    return all(told)


async def let_go(copies: Iterable[RemoteCopy]) -> None:
    """Returns once none of these copies, which get no more calls, has one that is open."""
    for copy in copies:
        while copy.in_flight:  # noqa: ASYNC110 - a call tells nobody that it has ended
            await asyncio.sleep(LOOK_S)
