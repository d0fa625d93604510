"""Many Predictors applied at once: a controller with its own rights, and a mesh with room for few.

The API server, the controller, the nodes and their etcd are real; the runtimes are `spi_runtime`,
with room for a tenth of the models. The controller's calls are those of the API server's audit log.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from mesh.kube.client import KubeClient, api_client
from mesh.kube.kinds import PREDICTOR
from mesh.kube.port import Json, Kube
from mesh.kube.reflector import Reflector
from mesh.ops.clock import wall_s
from mesh.wire.quantities import whole_bytes
from tests.controller.runtimes import DEPLOY
from tests.support.kube_audit import NAMESPACE, Call
from tests.support.kube_control_plane import ControlPlane
from tests.support.kube_controllers import ControllerProcess
from tests.support.kube_predictors import predictor
from tests.support.mesh_stand import MeshNode, MeshStand, eventually, mesh_stand

CLIENTS = 32
REST_S = 300.0
# A rest is no lull.
QUIET_S = 3.0
MODEL_BYTES = 1_000_000
NODES = 2
# About one Predictor, and of all calls together as a mean: most rest after a single one.
MOST_CALLS, MEAN_CALLS = 5, 2
RESTING = {"Loaded UpToDate", "Standby UpToDate"}


@dataclass
class Watched:
    """The standing of each Predictor, as any user sees it, and how often any of them changed."""

    standing: dict[str, str] = field(default_factory=dict)
    changes: int = 0

    def changed(self, name: str, obj: Json | None) -> None:
        self.standing[name] = standing_of(obj or {})
        self.changes += 1

    def are_resting(self, count: int) -> bool:
        return len(self.standing) == count and set(self.standing.values()) <= RESTING


@dataclass(frozen=True)
class Rest:
    """How it came to rest. `elsewhere`: what the node says that the controller does not ask."""

    applied_s: float
    rested_s: float
    memory_bytes: int
    grown_bytes: int
    calls: list[Call]
    runtime: Counter[str]
    elsewhere: dict[str, str]


def standing_of(obj: Json) -> str:
    status = obj.get("status") or {}
    return f"{status.get('activeModelState')} {status.get('transitionStatus')}"


async def apply_all(user: Kube, count: int) -> None:
    """As `kubectl apply --server-side` does, by many clients at once."""
    numbers = iter(range(count))

    async def client() -> None:
        for number in numbers:
            each = predictor(f"many-{number:04}", f"models/{number}")
            await user.apply(each, manager="kubectl")

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())


@asynccontextmanager
async def watched(plane: ControlPlane) -> AsyncIterator[tuple[Kube, Watched]]:
    """An administrator, who sees all that happens to the Predictors."""
    seen = Watched()
    async with await api_client(plane.kubeconfig) as api, asyncio.TaskGroup() as group:
        user = KubeClient(api, wall_s)
        following = group.create_task(Reflector(user, PREDICTOR, NAMESPACE, seen.changed).run())
        yield user, seen
        following.cancel()


async def runtime_counts(stand: MeshStand) -> Counter[str]:
    """Of all runtimes together, by their own word."""
    total: Counter[str] = Counter()
    for node in stand.nodes:
        assert node.runtime is not None
        found = await node.runtime.read()
        for name in ("loads", "unloads", "without_room"):
            total[name] += sum(found[name].values())
        total["loaded"] += len(found["loaded"])
    return total


async def said_by(node: MeshNode) -> dict[str, str]:
    return {obj["metadata"]["name"]: standing_of(obj) for obj in await node.read("PREDICTOR")}


async def until_resting(seen: Watched, count: int, log: ControllerProcess) -> None:
    """All rest, and nothing has changed for a while."""
    last = (-1, 0.0)

    async def resting() -> bool:
        nonlocal last
        now_s = time.monotonic()
        if last[0] != seen.changes:
            last = (seen.changes, now_s)
        return seen.are_resting(count) and now_s - last[1] > QUIET_S

    def what() -> str:
        return f"{Counter(seen.standing.values())}\n{log.log()[-2000:]}"

    await eventually(resting, what, REST_S)


async def brought_to_rest(plane: ControlPlane, folder: Path, count: int, room: int) -> Rest:
    capacity = room // NODES * MODEL_BYTES
    mesh = mesh_stand(folder / "mesh", nodes=NODES, capacity_bytes=capacity, traits="load=0.05")
    async with mesh as stand, watched(plane) as (user, seen):
        controller = ControllerProcess(plane, folder, "one", stand.nodes[0].internal)
        controller.start()
        try:
            controller.until_leading()
            memory, began_s = controller.memory_bytes(), time.monotonic()
            await apply_all(user, count)
            applied_s = time.monotonic() - began_s
            await until_resting(seen, count, controller)
            elsewhere = await said_by(stand.nodes[1])
            assert elsewhere == seen.standing
            return Rest(
                applied_s,
                time.monotonic() - began_s - QUIET_S,
                controller.memory_bytes(),
                controller.memory_bytes() - memory,
                controller.calls(),
                await runtime_counts(stand),
                elsewhere,
            )
        finally:
            controller.stop()


def memory_limit() -> int:
    """Of the shipped manifest."""
    manifest = yaml.safe_load((DEPLOY / "controller" / "deployment.yaml").read_text())
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    return int(whole_bytes(container["resources"]["limits"]["memory"]))


def figures(rest: Rest, count: int, room: int, most: int) -> str:
    standing = ", ".join(f"{n} {state}" for state, n in Counter(rest.elsewhere.values()).items())
    return (
        f"\n{count} Predictors applied in {rest.applied_s:.1f} s, with room for {room}: at rest"
        f" after {rest.rested_s:.1f} s ({standing}; {dict(rest.runtime)}). The controller has"
        f" {rest.memory_bytes / 1e6:.0f} MB, {rest.grown_bytes / 1e6:.0f} more than before, and"
        f" made {len(rest.calls) / count:.2f} calls a Predictor, {most} at most about one."
    )


async def test_many_predictors_at_once_rest_without_a_storm(
    plane: ControlPlane, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    count, room = 2_000, 200
    rest = await brought_to_rest(plane, tmp_path, count, room)
    about = Counter(call.about for call in rest.calls)
    most = max(about[name] for name in rest.elsewhere)
    with capsys.disabled():
        print(figures(rest, count, room, most))
    # A new Predictor takes free room only: nothing was loaded for which another one had to go.
    loaded = sum(state.startswith("Loaded") for state in rest.elsewhere.values())
    assert 0.9 * room <= loaded <= room
    kept = {"loads": loaded, "loaded": loaded, "unloads": 0, "without_room": 0}
    assert dict(rest.runtime) == kept
    # Each call counts, those of the election too.
    assert about.keys() >= rest.elsewhere.keys()
    assert most <= MOST_CALLS
    assert len(rest.calls) <= MEAN_CALLS * count
    assert {call.code for call in rest.calls if call.about} == {200, 201}
    assert rest.memory_bytes < memory_limit()
