"""etcd killed, and killed with the loss of its data, under traffic.

A real etcd, real node processes, runtime processes of ours; the checks ask the runtimes themselves.
"""

import asyncio

import pytest

from tests.support.mesh_checks import until_quiet
from tests.support.mesh_client import OK, MeshClient, one_of
from tests.support.mesh_stand import MakeMesh, MeshStand

MB = 1_000_000
RECOVERY_S = 30.0
# The long one outlasts every lease; a store that is wiped has none in any case.
SHORT_S = 3.0
LONG_S = 60.0


@pytest.mark.parametrize("is_wiped", [False, True], ids=["kept", "wiped"])
async def test_store_that_is_away_is_missed_by_nobody(
    make_mesh: MakeMesh, is_long: bool, is_wiped: bool
):
    async with make_mesh(capacity_bytes=5 * MB, traits="load=0.1") as stand:
        # The first are idle from now on, and make room for others when these are asked for.
        idle = [f"idle{number}" for number in range(9)]
        hot = [f"hot{number}" for number in range(6)]
        cold = [f"cold{number}" for number in range(4)]
        for name in (*idle, *hot, *cold):
            await stand.apply(name, f"version={name}", maxCopies=1)
            await stand.until_settled(name)
        await until_quiet(stand)
        async with MeshClient(stand.publics, stand.versions) as client:
            for name in hot:
                assert (await client.ask(name)).outcome == OK
            async with client.traffic(one_of(hot), 60):
                await asyncio.sleep(0.5)
                stand.etcd.kill()
                if is_wiped:
                    stand.etcd.wipe()
                await _load_cold(client, cold)
                await asyncio.sleep(LONG_S if is_long else SHORT_S)
                await asyncio.to_thread(stand.etcd.start)
                picture = await until_quiet(stand, RECOVERY_S)
            assert client.lost == [], client.summary()
        assert set(picture.predictors) == {*idle, *hot, *cold}
        await _changes_work(stand)


async def _load_cold(client: MeshClient, names: list[str]) -> None:
    """Known, loaded nowhere, and asked for while the store is away."""
    for name in names:
        asked = await client.ask(name)
        assert asked.outcome == OK, str(asked)


async def _changes_work(stand: MeshStand) -> None:
    await stand.apply("hot0", "version=changed", maxCopies=1)
    await stand.until_settled("hot0")
    await stand.delete("hot1")
    await until_quiet(stand)
