"""The figures of a mesh move with its requests: `/metrics` of each node, and `wml-serving top`."""

import asyncio

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.support.mesh_client import MeshClient, one_of
from tests.support.mesh_stand import BIN, OPERATIONS, MakeMesh, MeshNode

RPS = 40
INFER = {"method": "ModelInfer", "code": "OK"}


async def test_figures_move_with_requests_and_a_frozen_node_is_named(
    make_mesh: MakeMesh, is_real: bool
):
    async with make_mesh(nodes=2) as stand:
        model = await stand.apply("p", "version=p,infer=0.05", maxCopies=1)
        idle = await stand.apply("idle", "version=idle", maxCopies=1)
        for name in ("p", "idle"):
            await stand.until_settled(name)
        before = [await counted(node) for node in stand.nodes]
        async with MeshClient(stand.publics, stand.versions) as client:
            async with client.traffic(one_of(["p"]), RPS):
                await asyncio.sleep(0.5)
                tables = [await top(node) for node in stand.nodes]
            assert client.lost == [], client.summary()
            asked = len(client.asked)
        after = [await counted(node) for node in stand.nodes]
        api, invoked = (
            sum(last[name] - first[name] for first, last in zip(before, after, strict=True))
            for name in ("api_request", "invoke_model")
        )
        assert api == invoked == asked
        for rows in tables:
            assert 0.7 * RPS < float(rows[model][0]) < 1.3 * RPS
            least_ms = 0 if is_real else 40
            assert least_ms < float(rows[model][1]) < 1_000, rows[model]
            assert rows[idle][:2] == ["0.0", "<none>"]
            rates = [float(row[0]) for name, row in rows.items() if name.startswith("node")]
            assert len(rates) == 2
            assert sorted(rate > 0 for rate in rates) == [False, True]
        one, other = stand.nodes
        other.freeze()
        try:
            rows = await top(one)
        finally:
            other.resume()
        assert rows[other.id][:3] == ["does", "not", "answer"]
        assert float(rows[one.id][0]) == 0.0


async def counted(node: MeshNode) -> dict[str, float]:
    """How many calls a node says that it had, by the name between `modelmesh_` and its unit."""
    url = f"http://{node.host}:{OPERATIONS}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        families = list(text_string_to_metric_families(await answer.text()))
    return {
        name: sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == f"modelmesh_{name}_milliseconds_count" and sample.labels == INFER
        )
        for name in ("api_request", "invoke_model")
    }


async def top(node: MeshNode) -> dict[str, list[str]]:
    """The rows of the two tables, by their first cells."""
    words = ("--server", node.internal, "top", "--once", "--interval", "1.5")
    process = await asyncio.create_subprocess_exec(
        BIN / "wml-serving", *words, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return {line.split()[0]: line.split()[1:] for line in output.decode().splitlines() if line}
