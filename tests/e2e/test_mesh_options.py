"""What a node is told of itself and of the mesh by its command line: zone, labels and policy.

Real node processes without etcd, and a runtime process of ours.
"""

import asyncio
import json
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

from tests.support.mesh_client import OK, MeshClient
from tests.support.mesh_stand import BIN, MeshNode, small_mesh

POLICY = """
typeConstraints:
  sklearn:
    required: [gpu, ssd]
  xgboost:1:
    required: [gpu, tpu]
"""


async def test_zone_and_labels_are_told_and_models_go_by_the_policy(tmp_path: Path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    async with small_mesh(tmp_path / "mesh", nodes=0, options=("--policy", str(policy))) as stand:
        keeper = stand.nodes[0]
        node = stand.add(options=("--zone", "z1", "--labels", "gpu,ssd"))
        await stand.until_ready()
        for asked in stand.nodes:
            told = {it["metadata"]["name"]: it["status"] for it in await _nodes(asked)}
            assert told.keys() == {keeper.id, node.id}
            assert (told[node.id]["zone"], told[node.id]["labels"]) == ("z1", ["gpu", "ssd"])
            assert not told[keeper.id].get("zone")
            assert not told[keeper.id].get("labels")
        await stand.apply("fits", "version=1")
        await stand.apply("lacks", "version=1", modelType={"name": "xgboost", "version": "1"})
        for asked in stand.nodes:
            async with MeshClient([asked.public], stand.versions) as client:
                assert (await client.ask("fits")).outcome == OK
                lacks = await client.ask("lacks")
                assert lacks.outcome == "UNAVAILABLE"
                assert lacks.details.endswith("lacks the labels tpu")


async def _nodes(asked: MeshNode) -> list[dict[str, Any]]:
    command = [BIN / "wml-serving", "--server", asked.internal, "get", "nodes", "-o", "json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    text, _ = await process.communicate()
    assert process.returncode == 0
    found: list[dict[str, Any]] = json.loads(text)["items"]
    return found
