"""`wml-serving drain`: a node hands over, and the command returns once it has.

A real etcd, real node processes, runtime processes of ours; the checks ask the runtimes themselves.
"""

import asyncio

from tests.support.mesh_client import MeshClient, one_of
from tests.support.mesh_stand import BIN, MakeMesh, MeshNode

NAMES = [f"p{number}" for number in range(6)]


async def test_drain_that_waits_ends_once_another_node_has_all(make_mesh: MakeMesh):
    """No request is lost by it, nor by the end of the process that follows."""
    async with make_mesh(nodes=2, traits="load=0.5") as stand:
        leaving, staying = stand.nodes
        models = {await stand.apply(name, f"version={name}", maxCopies=1) for name in NAMES}
        for name in NAMES:
            await stand.until_settled(name)
        async with MeshClient(stand.publics, stand.versions) as client:
            for name in NAMES:
                await client.ask(name)
            assert leaving.runtime is not None
            assert staying.runtime is not None
            assert await leaving.runtime.index() & models  # something is to be handed over
            async with client.traffic(one_of(NAMES), 40):
                said = await drained(leaving, at=staying)
                assert models <= await staying.runtime.index()
                assert leaving.is_running
                assert await state(leaving, at=staying) == "Draining"
                # Also where it is asked itself, and again.
                assert await drained(leaving, at=leaving) == said
                leaving.terminate()
                assert await leaving.until_ended() == 0, leaving.tail()
            assert client.lost == [], client.summary()
        assert said == f"node/{leaving.ids()[-1]} draining\nnode/{leaving.ids()[-1]} handed over\n"


async def drained(node: MeshNode, *, at: MeshNode) -> str:
    """What the command says; nothing is kept, or it would say so as well."""
    words = ("--server", at.internal, "drain", node.id, "--wait", "--timeout", "60")
    process = await asyncio.create_subprocess_exec(
        BIN / "wml-serving", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, complaint = await process.communicate()
    assert (process.returncode, complaint) == (0, b"")
    return said.decode()


async def state(node: MeshNode, *, at: MeshNode) -> str:
    (shown,) = await at.read("NODE", node.id)
    return str(shown["status"]["state"])
