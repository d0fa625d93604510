"""A mesh of which something breaks under traffic: nodes killed, frozen, cut off, restarted.

A real etcd, real node processes, runtime processes of ours; the checks ask the runtimes themselves.
"""

import asyncio
import time
from functools import partial

from tests.support.mesh_checks import until_quiet
from tests.support.mesh_client import OK, MeshClient, cut_short, one_of
from tests.support.mesh_predictors import apply_some, held_by, until_all_answer
from tests.support.mesh_stand import MakeMesh

MB = 1_000_000
# A client's own keepalive, and that of the nodes, notice a peer that does not answer.
KEEPALIVE_S = 5.0
CUT_S = 5.0
LOAD_S = 1.0


async def test_killed_node_costs_what_was_in_flight_on_it(make_mesh: MakeMesh, is_long: bool):
    async with make_mesh(capacity_bytes=10 * MB, traits="load=0.05") as stand:
        names = await apply_some(stand, 12)
        for victim in stand.nodes if is_long else stand.nodes[1:2]:
            await until_all_answer(stand, names)
            async with MeshClient(stand.publics, stand.versions) as client:
                async with client.traffic(one_of(names), 100):
                    await asyncio.sleep(1)
                    victim.kill()
                    killed_s = time.monotonic()
                    await asyncio.sleep(3)
                lost = client.lost_but_for(partial(cut_short, fault_s=killed_s, within_s=1.0))
                assert lost == [], client.summary()
                # What is told: only what was sent to it, or what it was asked for.
                assert len(client.lost) < 20, client.summary()
            await until_quiet(stand)
            held = set.union(*[await node.runtime.index() for node in stand.well if node.runtime])
            assert {stand.versions.latest(name) for name in names} <= held
            victim.start()
            await stand.until_ready()


async def test_frozen_node_is_routed_around_and_wakes_up_without_old_answers(
    make_mesh: MakeMesh, is_long: bool
):
    async with make_mesh(capacity_bytes=10 * MB, traits="load=0.05") as stand:
        names = await apply_some(stand, 9)
        await stand.apply("updated", "version=old")
        await until_all_answer(stand, [*names, "updated"])
        frozen = (await stand.holders(stand.versions.latest("updated")))[0]
        deleted = (await held_by(stand, names, [frozen]))[0]
        names.remove(deleted)
        async with (
            MeshClient(stand.publics, stand.versions) as client,
            MeshClient([frozen.public], stand.versions, is_patient=True) as waiting,
        ):
            assert (await waiting.ask("updated")).outcome == OK
            async with client.traffic(one_of(names), 60):
                frozen.freeze()
                frozen_s = time.monotonic()
                await stand.apply("updated", "version=new")
                await stand.delete(deleted)
                await stand.until_settled("updated")
                async with asyncio.TaskGroup() as group:
                    first = [
                        group.create_task(waiting.ask(("updated", deleted)[n % 2], 60.0))
                        for n in range(100)
                    ]
                    await asyncio.sleep(30 if is_long else 11)
                    frozen.resume()
                await stand.until_known()
                await asyncio.sleep(1)
            lost = client.lost_but_for(partial(cut_short, fault_s=frozen_s, within_s=KEEPALIVE_S))
            assert lost == [], client.summary()
            answers = [task.result() for task in first]
            assert {str(a) for a in answers if a.name == "updated" and a.is_lost} == set()
            assert {a.outcome for a in answers if a.name == deleted} == {"NOT_FOUND"}
        await until_quiet(stand)


async def test_cut_between_nodes_is_routed_around(make_mesh: MakeMesh, is_long: bool):
    async with make_mesh(capacity_bytes=10 * MB, traits="load=0.05", is_cuttable=True) as stand:
        names = await apply_some(stand, 9)
        await until_all_answer(stand, names)
        lonely, *others = stand.nodes
        here = await held_by(stand, names, [lonely])
        there = await held_by(stand, names, others)
        assert here
        assert there
        assert stand.cuts is not None
        async with (
            MeshClient([lonely.public], stand.versions) as one,
            MeshClient([node.public for node in others], stand.versions) as other,
            one.traffic(one_of(here), 40),
            other.traffic(one_of(there), 40),
        ):
            await asyncio.sleep(0.5)
            stand.cuts.cut(lonely, *others)
            cut_s = time.monotonic()
            await asyncio.sleep(60 if is_long else 7)
            stand.cuts.heal()
            await asyncio.sleep(3)
        assert stand.cuts.stalled > 0  # it did cut something
        for client in (one, other):
            lost = client.lost_but_for(partial(cut_short, fault_s=cut_s, within_s=CUT_S))
            assert lost == [], client.summary()
        await until_quiet(stand)
        await until_all_answer(stand, names)


async def test_rolling_restart_is_not_seen(make_mesh: MakeMesh, is_long: bool):
    async with make_mesh(capacity_bytes=12 * MB, traits=f"load={LOAD_S}") as stand:
        names = await apply_some(stand, 20)
        await until_all_answer(stand, names)
        async with MeshClient(stand.publics, stand.versions) as client:
            async with client.traffic(one_of(names), 100, burst=10):
                for _ in range(3 if is_long else 1):
                    for node in stand.nodes:
                        node.terminate()
                        assert await node.until_ended() == 0, node.tail()
                        node.start()
                        await node.until_ready()
                await asyncio.sleep(0.5)
            assert client.lost == [], client.summary()
            # Models were loaded elsewhere first: nobody waited for a load.
            slow = [asked for asked in client.asked if asked.end_s - asked.start_s > LOAD_S]
            assert slow == [], client.summary()
        await until_quiet(stand)
