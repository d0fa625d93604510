"""A node that was frozen is told what it missed, also by nodes that came after a wipe of the store.

A real etcd, real node processes, runtime processes of ours.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.mesh_checks import until_quiet
from tests.support.mesh_client import MeshClient
from tests.support.mesh_predictors import apply_some, until_all_answer
from tests.support.mesh_stand import MakeMesh, MeshNode, MeshStand

# More than `pulse.STALE_S`, less than pings take to find a frozen peer.
FROZEN_S = 3.5
NAMES = ["p0", "p1", "p2", "p3"]


@asynccontextmanager
async def oldest_frozen(make_mesh: MakeMesh) -> AsyncIterator[tuple[MeshStand, MeshNode]]:
    """The only node that has seen the store before a wipe is frozen, and has missed changes."""
    async with make_mesh(traits="load=0.05") as stand:
        assert await apply_some(stand, len(NAMES)) == NAMES
        await until_all_answer(stand, NAMES)
        stand.etcd.kill()
        stand.etcd.wipe()
        await asyncio.to_thread(stand.etcd.start)
        await until_quiet(stand)
        frozen, *younger = stand.nodes
        for node in younger:
            node.terminate()
            await node.until_ended()
            node.start()
            await node.until_ready()
        await until_quiet(stand)
        frozen.freeze()
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(FROZEN_S))
            for name in NAMES:
                await stand.apply(name, f"version=new-{name}")
            for name in NAMES:
                await stand.until_settled(name)
        yield stand, frozen


async def test_frozen_node_does_not_fill_a_wiped_store_with_what_was_before(make_mesh: MakeMesh):
    async with oldest_frozen(make_mesh) as (stand, frozen):
        deleted, *kept = NAMES
        await stand.delete(deleted)
        stand.etcd.kill()
        stand.etcd.wipe()
        await asyncio.to_thread(stand.etcd.start)
        frozen.resume()
        async with MeshClient([frozen.public], stand.versions, is_patient=True) as client:
            for name in kept * 5:
                await client.ask(name)
        picture = await until_quiet(stand)
        active = {str(it.name): str(it.active) for it in picture.predictors.values()}
        assert active == {name: stand.versions.latest(name) for name in kept}
        assert client.lost == [], [str(asked) for asked in client.lost]
