"""A mesh whose network loses packets, between some and not between others: see `mesh_lab`.

A real etcd, real node processes, each in a network of its own; rules of the kernel drop what would
arrive, and nothing is reset. One client has all nodes in turn, and reaches all of them all the
time. The checks ask the runtimes themselves.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

from mesh.agent.announce import LEASE_S
from mesh.core.records import NodeRecord
from tests.support.mesh_checks import counts, read_store, until_quiet
from tests.support.mesh_client import MeshClient, cut_short, one_of
from tests.support.mesh_predictors import apply_some, held_by, until_all_answer
from tests.support.mesh_stand import MakeMesh, MeshNode, MeshStand, eventually

MB = 1_000_000
RPS = 60
NOTICED_S = 5.0
# Shorter than a peer that is silent is waited for, and long enough for a load on a busy machine.
PROMPT_S = 4.0
# Surplus copies are trimmed, what was missed is announced again, and all is agreed about.
RECOVERY_S = 30.0
OVER_LEASE_S = LEASE_S + 4.0
LONG_S = 60.0


async def test_cut_between_nodes_is_routed_around(make_lab_mesh: MakeMesh, is_long: bool):
    """Also where a third reaches both; the long one is cut from the third as well."""
    async with make_lab_mesh(capacity_bytes=12 * MB, traits="load=0.05") as stand:
        names = await apply_some(stand, 9, maxCopies=1)
        await until_all_answer(stand, names)
        one, other, third = [node.host for node in stand.nodes]
        async with _cut_under_traffic(stand, one, other, *([third] if is_long else [])) as client:
            await asyncio.sleep(LONG_S if is_long else NOTICED_S + 4.0)
        assert client.lost  # some were in flight
        # What was on the other side was loaded on this one, and is not kept twice.
        assert (await counts(stand))["loads"] > len(names)
        await until_all_answer(stand, names)


async def test_node_that_only_its_clients_reach_serves_them(make_lab_mesh: MakeMesh, is_long: bool):
    async with make_lab_mesh(capacity_bytes=12 * MB, traits="load=0.05") as stand:
        names = await apply_some(stand, 9, maxCopies=1)
        await until_all_answer(stand, names)
        lonely, *others = stand.nodes
        cut = [node.host for node in others] + [stand.etcd.host]
        async with _cut_under_traffic(stand, lonely.host, *cut):
            await asyncio.sleep(LONG_S if is_long else OVER_LEASE_S)
            assert not _is_stored(stand, lonely)
            assert set(await held_by(stand, names, [lonely])) == set(names)
        await until_all_answer(stand, names)


async def test_node_cut_from_the_store_keeps_what_it_has(make_lab_mesh: MakeMesh, is_long: bool):
    """The store has neither the node nor its copies any more, and the others ask it still. A
    Predictor that is changed meanwhile is served in one way or the other."""
    async with make_lab_mesh(capacity_bytes=12 * MB, traits="load=0.05") as stand:
        names = await apply_some(stand, 9, maxCopies=1)
        await until_all_answer(stand, names)
        lonely, other, _ = stand.nodes
        changed, *unchanged = await held_by(stand, names, [lonely])
        unchanged += set(names) - {changed, *unchanged}
        async with _cut_under_traffic(stand, lonely.host, stand.etcd.host) as client:
            await asyncio.sleep(LONG_S if is_long else OVER_LEASE_S)
            assert not _is_stored(stand, lonely)
            model = await stand.apply(changed, "version=new", at=other, maxCopies=1)
            await eventually(lambda: stand.holders(model), lambda: f"{model} is loaded")
            await asyncio.sleep(2)  # some traffic, while one node knows nothing of it
        assert client.lost == [], client.summary()
        # None was replaced.
        assert {name: await stand.loads(stand.versions.latest(name)) for name in unchanged} == (
            dict.fromkeys(unchanged, 1)
        )
        await until_all_answer(stand, names)


@contextlib.asynccontextmanager
async def _cut_under_traffic(stand: MeshStand, one: str, *others: str) -> AsyncIterator[MeshClient]:
    """The one address is cut from the others inside of the block; then all is to agree again, and
    nothing may be lost but what was under way in the first seconds."""
    assert stand.lab is not None
    async with MeshClient(stand.publics, stand.versions) as client:
        async with client.traffic(one_of(stand.versions.names()), RPS):
            await asyncio.sleep(0.5)
            stand.lab.cut(one, *others)
            cut_s = time.monotonic()
            yield client
            dropped = stand.lab.dropped()
            stand.lab.heal()
            await until_quiet(stand, RECOVERY_S)
        excused = partial(cut_short, fault_s=cut_s, within_s=NOTICED_S)
        assert client.lost_but_for(excused) == [], client.summary()
        later = [asked for asked in client.asked if asked.start_s > cut_s + NOTICED_S]
        assert [str(a) for a in later if a.end_s - a.start_s > PROMPT_S] == [], client.summary()
    pairs = {pair for other in others for pair in ((one, other), (other, one))}
    assert {pair for pair, packets in dropped.items() if packets} == pairs  # it did cut


def _is_stored(stand: MeshStand, node: MeshNode) -> bool:
    stored, _ = read_store(stand)
    return node.id in {record.id for record in stored if isinstance(record, NodeRecord)}
