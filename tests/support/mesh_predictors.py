"""What most scenarios of a mesh begin with: some Predictors, loaded, and known to every node."""

from collections.abc import Sequence
from typing import Any

from tests.support.mesh_client import OK, MeshClient
from tests.support.mesh_stand import DEADLINE_S, MeshNode, MeshStand


async def apply_some(stand: MeshStand, count: int, **spec: Any) -> list[str]:
    """Their names."""
    names = [f"p{number}" for number in range(count)]
    for name in names:
        await stand.apply(name, f"version={name}", **spec)
    return names


async def until_all_answer(stand: MeshStand, names: Sequence[str]) -> None:
    """Each is loaded, and every node knows it."""
    for name in names:
        await stand.until_settled(name)
    async with MeshClient(stand.publics, stand.versions) as client:
        for name in names:
            for _ in stand.nodes:
                assert (await client.ask(name, DEADLINE_S)).outcome == OK, client.summary()


async def held_by(stand: MeshStand, names: Sequence[str], nodes: Sequence[MeshNode]) -> list[str]:
    """Those that one of the nodes has a copy of, by the runtimes' own word."""
    held = set.union(*[await node.runtime.index() for node in nodes if node.runtime])
    return [name for name in names if stand.versions.latest(name) in held]
