"""etcd killed, and killed with the loss of its data, under traffic.

A real etcd, real node processes, runtime processes of ours; the checks ask the runtimes themselves.
"""

import asyncio
import json

import pytest

from mesh.agent.announce import LEASE_S
from tests.support.mesh_checks import counts, until_quiet
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


async def test_leases_that_run_out_are_missed_by_nobody(make_mesh: MakeMesh, is_long: bool):
    """All of them at once, so that the store has no node and no copy: everything is said again."""
    async with make_mesh(capacity_bytes=5 * MB, traits="load=0.1") as stand:
        hot = [f"hot{number}" for number in range(9)]
        for name in hot:
            await stand.apply(name, f"version={name}", maxCopies=1)
            await stand.until_settled(name)
        await until_quiet(stand)
        before = _leases(stand)
        assert len(before) == len(stand.nodes)
        async with MeshClient(stand.publics, stand.versions) as client:
            for name in hot:
                assert (await client.ask(name)).outcome == OK
            async with client.traffic(one_of(hot), 60):
                await asyncio.sleep(0.5)
                if is_long:
                    stand.etcd.freeze()
                    await asyncio.sleep(LEASE_S + 5.0)
                    stand.etcd.resume()
                else:
                    for lease in before:
                        await asyncio.to_thread(stand.etcd.ctl, "lease", "revoke", lease)
                await until_quiet(stand, RECOVERY_S)
            assert client.lost == [], client.summary()
        assert not before & _leases(stand)
        assert (await counts(stand))["loads"] == len(
            hot
        )  # those that serve are asked, not replaced


def _leases(stand: MeshStand) -> set[str]:
    found = json.loads(stand.etcd.ctl("lease", "list", "-w", "json"))
    return {f"{lease['id']:x}" for lease in found["leases"]}
