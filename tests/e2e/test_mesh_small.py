"""A mesh without etcd: one node keeps the store in its memory, and may lose it at any time; and
nodes that are started only once something waits for their runtime.

Real node processes, runtime processes of ours.
"""

import asyncio
import json
import time
from datetime import UTC, datetime

import yaml

from mesh.ops.clock import wall_s
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.mesh_client import OK, MeshClient, one_of
from tests.support.mesh_stand import RUNTIME, MakeMesh, MeshNode, MeshStand, eventually
from tests.support.world import begin

NAMES = [f"p{number}" for number in range(6)]
# From the start of the process that keeps the store until everything is known everywhere.
KNOWN_S = 15.0


async def test_store_that_is_lost_with_its_node_is_missed_by_nobody(make_small_mesh: MakeMesh):
    async with make_small_mesh() as stand:
        keeper, *holders = stand.nodes
        models = {name: await stand.apply(name, f"version={name}", maxCopies=1) for name in NAMES}
        for name in NAMES:
            await stand.until_settled(name)
        # Its own clients go elsewhere while it is away, as those of a Service do.
        async with MeshClient([node.public for node in holders], stand.versions) as client:
            async with client.traffic(one_of(NAMES), 40):
                for away_s in (0.0, 8.0):
                    await asyncio.sleep(1.0)
                    keeper.kill()
                    await asyncio.sleep(away_s)
                    await _come_back(stand, keeper)
            assert client.lost == [], client.summary()
        for name, model in models.items():
            assert await stand.loads(model) == 1, f"{name} was loaded again"


async def _come_back(stand: MeshStand, keeper: MeshNode) -> None:
    """From its first answer on it knows all; changes work at once."""
    begun_s = time.monotonic()
    keeper.start()
    async with MeshClient([keeper.public], stand.versions) as client:

        async def answers() -> bool:
            asked = await client.ask(NAMES[0])
            assert asked.outcome in (OK, "UNAVAILABLE"), str(asked)
            return asked.outcome == OK

        await eventually(answers, lambda: f"the store is back\n{keeper.tail()}")
        for name in NAMES:
            asked = await client.ask(name)
            assert asked.outcome == OK, str(asked)
    await stand.until_known()
    for name in NAMES:
        await stand.until_settled(name)
    assert time.monotonic() - begun_s < KNOWN_S
    await stand.apply("later", f"version={begun_s}", at=stand.nodes[1])
    await stand.until_settled("later")


async def test_mesh_without_etcd_goes_through_a_restart_of_each_of_its_nodes(
    make_small_mesh: MakeMesh,
):
    async with make_small_mesh() as stand:
        for name in NAMES:
            await stand.apply(name, f"version={name}")
            await stand.until_settled(name)
        async with MeshClient(stand.publics, stand.versions) as client:
            async with client.traffic(one_of(NAMES), 40):
                for node in stand.nodes:
                    await asyncio.sleep(1.0)
                    node.terminate()
                    await node.until_ended()
                    node.start()
                    await node.until_ready()
                    await stand.until_known()
            assert client.lost == [], client.summary()


async def test_request_waits_for_a_node_that_is_started_because_of_it(make_small_mesh: MakeMesh):
    """Who starts nodes is this test: it reads what is wanted, also after the store was lost."""
    async with make_small_mesh(nodes=0) as stand:
        keeper = stand.nodes[0]
        other = stand.add(has_runtime=False)
        await stand.until_ready()
        await _set_runtime(keeper, "Zero")
        await stand.apply("p", "version=p")
        async with MeshClient([other.public], stand.versions) as client:
            asked = begin(client.ask("p", timeout_s=60.0))
            await _until_wanted(other)
            keeper.kill()
            keeper.start()
            await keeper.until_ready()
            await _until_wanted(keeper)
            assert (await keeper.read("RUNTIME"))[0]["status"]["predictors"] == 1
            assert not asked.done()
            await _set_runtime(keeper, "Starting")
            stand.add()
            assert (await asked).outcome == OK
        await stand.until_settled("p")


async def _set_runtime(node: MeshNode, state: str) -> None:
    runtime = yaml.safe_load(RUNTIME.read_text())
    runtime["status"] = {"state": state, "since": datetime.fromtimestamp(wall_s(), UTC).isoformat()}
    await node.manage.SetRuntimes(pb.SetRuntimesRequest(json=[json.dumps(runtime)]))


async def _until_wanted(node: MeshNode) -> None:
    async def is_wanted() -> bool:
        """Within the last seconds."""
        shown = await node.read("RUNTIME")
        wanted = [it["status"]["wanted"] for it in shown if it["status"]["wanted"]]
        return any(wall_s() - datetime.fromisoformat(it).timestamp() < 8.0 for it in wanted)

    await eventually(is_wanted, lambda: f"{node.public} says that the runtime is wanted")
