"""A mesh under traffic with nothing broken: more models than room, a crowd on one, updates.

A real etcd, real node processes, runtime processes of ours; the checks ask the runtimes themselves.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator

from tests.support.mesh_checks import counts, until_quiet
from tests.support.mesh_client import OK, MeshClient, one_of
from tests.support.mesh_stand import MakeMesh, MeshNode, MeshStand

MB = 1_000_000
CROWD = 300


async def test_twice_as_many_models_as_room_lose_no_request(
    make_mesh: MakeMesh, is_long: bool, is_real: bool
):
    async with make_mesh(capacity_bytes=10 * MB, traits="load=0.05") as stand:
        names = [f"p{number}" for number in range(60)]
        for name in names:
            await stand.apply(name, f"version={name}")
        async with MeshClient(stand.publics, stand.versions) as client:
            async with client.traffic(one_of(names), 150 if is_long else 60):
                await asyncio.sleep(120 if is_long else 5)
            assert client.lost == [], client.summary()
        picture = await until_quiet(stand)
        counted = await counts(stand)
        if not is_real:  # MLServer does not count it
            assert counted["without_room"] == 0, counted
        assert all(len(held) <= 10 for held in picture.held.values())
        assert counted["loads"] > 60  # there was something to evict


async def test_crowd_on_a_cold_model_loads_it_once(make_mesh: MakeMesh):
    async with full_stand(make_mesh) as stand:
        await stand.apply("cold", "load=1", maxCopies=1)
        await asyncio.sleep(0.5)
        assert await stand.loads(stand.versions.latest("cold")) == 0
        async with MeshClient(stand.publics, stand.versions) as client:
            await _crowd(client, "cold")
        assert await stand.loads(stand.versions.latest("cold")) == 1
        await until_quiet(stand)


async def test_crowd_on_a_cold_model_loads_it_once_while_a_node_joins(make_mesh: MakeMesh):
    async with full_stand(make_mesh) as stand:
        await stand.apply("cold", "load=2.5", maxCopies=1)
        asking = MeshClient(stand.publics, stand.versions)
        joining = stand.add()
        async with (
            asking,
            MeshClient([joining.public], stand.versions) as late,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(_crowd(asking, "cold"))
            await joining.until_ready()
            group.create_task(_crowd(late, "cold"))
        assert await stand.loads(stand.versions.latest("cold")) == 1
        await until_quiet(stand)


async def test_crowd_on_a_cold_model_loads_it_once_while_the_first_choice_is_frozen(
    make_mesh: MakeMesh,
):
    async with full_stand(make_mesh) as stand:
        await stand.apply("cold", "load=0.5", maxCopies=1)
        first = stand.nodes[2]
        await _make_room(stand, first)
        first.freeze()
        well = [node.public for node in stand.well]
        async with MeshClient(well, stand.versions) as client:
            await _crowd(client, "cold")
        first.resume()
        await stand.until_known()
        await until_quiet(stand)
        assert await stand.loads(stand.versions.latest("cold")) == 1


async def test_hundred_updates_in_a_row_never_step_back(make_mesh: MakeMesh):
    async with make_mesh(capacity_bytes=6 * MB, traits="load=0.01") as stand:
        paths = [f"version={number}" for number in range(101)]
        async with watched(stand, "p", paths[0]) as watchers:
            for path in paths[1:]:
                await stand.apply("p", path, at=random.choice(stand.nodes))
            await stand.until_settled("p")
            await asyncio.sleep(0.5)
        await _ends_with_one(stand, "p")
        assert all(watcher.lost == [] for watcher in watchers), watchers[0].summary()
        for watcher in watchers:
            order = [stand.versions.index("p", asked.model) for asked in watcher.asked]
            assert order == sorted(order)
            assert order[-1] == 100


async def test_updates_to_and_fro_end_with_the_last_one(make_mesh: MakeMesh):
    async with make_mesh(capacity_bytes=6 * MB, traits="load=0.05") as stand:
        async with watched(stand, "p", "version=a") as watchers:
            for path in ("version=b", "version=a", "version=b") * 3:
                await stand.apply("p", path, at=random.choice(stand.nodes))
            await stand.until_settled("p")
            await asyncio.sleep(0.2)
        await _ends_with_one(stand, "p")
        assert all(watcher.lost == [] for watcher in watchers), watchers[0].lost[:3]
        last = {watcher.asked[-1].model for watcher in watchers}
        assert last == {stand.versions.latest("p")}


@contextlib.asynccontextmanager
async def full_stand(make_mesh: MakeMesh) -> AsyncIterator[MeshStand]:
    """Six idle models fill the runtimes, so that a new Predictor is loaded when it is used."""
    async with make_mesh(capacity_bytes=2 * MB) as stand:
        for number in range(6):
            await stand.apply(f"idle{number}", f"version={number}", maxCopies=1)
        async with MeshClient(stand.publics, stand.versions) as client:
            # What a node says of its room is a second old, so that some are evicted meanwhile.
            while Counter(map(len, (await until_quiet(stand)).held.values())) != {2: 3}:
                for name in stand.versions.names():
                    assert (await client.ask(name)).outcome == OK, client.summary()
                    await asyncio.sleep(0.1)
        yield stand


async def _crowd(client: MeshClient, name: str) -> None:
    answers = await client.ask_at_once(name, CROWD)
    assert Counter(asked.outcome for asked in answers) == {OK: CROWD}, client.summary()


async def _make_room(stand: MeshStand, node: MeshNode) -> None:
    """Placement prefers a node with room to one that must evict."""
    assert node.runtime is not None
    held = await node.runtime.index()
    name = next(name for name in stand.versions.names() if stand.versions.latest(name) in held)
    await stand.delete(name)
    await until_quiet(stand)


@contextlib.asynccontextmanager
async def watched(stand: MeshStand, name: str, path: str) -> AsyncIterator[list[MeshClient]]:
    """Asks each node over a connection of its own, one request after the other."""
    await stand.apply(name, path)
    await stand.until_settled(name)
    stop = asyncio.Event()

    async def run(client: MeshClient) -> None:
        while not stop.is_set():
            await client.ask(name)
            await asyncio.sleep(0.01)

    async with contextlib.AsyncExitStack() as stack:
        clients = [MeshClient([public], stand.versions) for public in stand.publics]
        for client in clients:
            await stack.enter_async_context(client)
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(run(client))
            yield clients
            stop.set()


async def _ends_with_one(stand: MeshStand, name: str) -> None:
    """One model is left, in the store and in the runtimes."""
    picture = await until_quiet(stand)
    assert set(picture.models) == {stand.versions.latest(name)}
    assert set.union(*picture.held.values()) == {stand.versions.latest(name)}
