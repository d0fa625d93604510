"""The controller killed at every moment of a scenario, and started again: in virtual time.

A moment is before or after each of its calls that write, to the API server or to the mesh.
"""

import asyncio
import copy
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from mesh.controller.controller import Controller, Place
from mesh.controller.leader import DURATION_S
from mesh.controller.pods import Installation
from mesh.core.ids import canonical_spec
from tests.controller.runtimes import shipped
from tests.controller.test_site import PlayedMesh, predictor
from tests.support.kube_memory import MemoryKube
from tests.support.mortal import Fate, Mortal
from tests.support.virtual_time import CLOCK
from tests.support.world import begin

KUBE_WRITES = ("apply", "apply_status", "delete", "event")
MESH_WRITES = ("apply", "delete", "set_runtimes")
NAMES = {"p", "q", "late"}
TURNS = 8
# A second controller leads once the Lease of the first has run out.
SCENARIO_S, REST_S = 14.0, 3 * DURATION_S


class LivelyMesh(PlayedMesh):
    """A mesh that loads what it is told, in half a second; `bad` as a path fails."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: Counter[str] = Counter()

    async def apply(self, obj: dict, owner: str) -> None:
        spec, name = canonical_spec(obj["spec"]), obj["metadata"]["name"]
        before = self.shown.get(name)
        is_same = before is not None and canonical_spec(before["spec"]) == spec
        if is_same:
            self.applied.append(name)
            return
        await super().apply(obj, owner)
        self.loads[f"{name} {spec}"] += 1
        asyncio.get_running_loop().call_later(0.5, self._loaded, name, spec)

    def _loaded(self, name: str, spec: str) -> None:
        shown = self.shown.get(name)
        if shown is None or canonical_spec(shown["spec"]) != spec:
            return
        if '"bad"' in spec:
            failure = {"reason": "ModelLoadFailed", "message": "no such object"}
            self.say(name, available=False, activeModelState="Failed", lastFailureInfo=failure)
        else:
            self.say(name, available=True, activeModelState="Loaded", lastFailureInfo=None)


class WatchedKube(MemoryKube):
    """`shown` has every state that a status has ever named, by Predictor."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: set[tuple[str, str]] = set()

    async def apply_status(self, obj: dict) -> dict | None:
        state = obj["status"].get("activeModelState")
        if state in ("Loading", "Loaded", "Failed"):
            self.shown.add((obj["metadata"]["name"], state))
        return await super().apply_status(obj)


@dataclass
class World:
    """What outlives a controller."""

    kube: WatchedKube = field(default_factory=WatchedKube)
    mesh: LivelyMesh = field(default_factory=LivelyMesh)

    async def scenario(self) -> None:
        """What users do, whatever becomes of the controller."""
        self.kube.put(copy.deepcopy(shipped()) | {"metadata": {"name": "r", "namespace": "ns"}})
        for name, path in (("p", "a"), ("q", "bad"), ("gone", "c")):
            self.kube.put(predictor(name, path))
        await asyncio.sleep(4.0)
        self.kube.put(predictor("p", "b"))
        self.kube.remove("Predictor", "gone")
        await asyncio.sleep(4.0)
        self.kube.put(predictor("q", "mended"))
        self.kube.put(predictor("late", "d"))
        await asyncio.sleep(SCENARIO_S - 8.0)

    def controller(self, fate: Fate, identity: str) -> Controller:
        mesh: Any = Mortal(self.mesh, fate, MESH_WRITES)

        class Connections:
            def connected(self) -> Any:
                return _Connection(mesh, fate)

        place = Place("ns", frozenset({"ns"}), identity, Installation("image"), None)
        kube: Any = Mortal(self.kube, fate, KUBE_WRITES)
        return Controller(kube, lambda _: Connections(), place, CLOCK)  # type: ignore[arg-type,return-value]

    def stands(self) -> dict[str, Any]:
        """What there is in the end."""
        kinds = ("Predictor", "Deployment", "ConfigMap", "PodDisruptionBudget")
        return {
            **{
                f"{kind} {name}": (item.get("spec"), item.get("data"), item.get("status"))
                for (kind, _, name), item in self.kube.objects.items()
                if kind in kinds
            },
            "mesh": {name: shown["spec"] for name, shown in self.mesh.shown.items()},
            "runtimes": self.mesh.runtimes[-1],
        }


class _Connection:
    def __init__(self, mesh: Any, fate: Fate) -> None:
        self._mesh, self._fate = mesh, fate

    async def __aenter__(self) -> Any:
        self._fate.check()
        return self._mesh

    async def __aexit__(self, *_: object) -> None: ...


async def lived(at: int | None) -> tuple[World, Fate]:
    """The scenario, with a controller that is killed at a moment, and one that follows it."""
    world, fate = World(), Fate(at)
    users = begin(world.scenario())
    first = begin(world.controller(fate, "first").run())
    over = begin(fate.is_over.wait())
    await asyncio.wait({over}, timeout=SCENARIO_S + 5.0)
    last = first
    if at is not None:
        first.cancel()
        last = begin(world.controller(Fate(None), "second").run())
    await users
    await asyncio.sleep(REST_S)
    for task in (over, last):
        task.cancel()
    await asyncio.wait({over, last})
    return world, fate


def told(world: World) -> set[tuple[str, str]]:
    return {(name, reason) for name, reason, _ in world.kube.events}


async def test_scenario_without_a_death():
    world, fate = await lived(None)
    stands = world.stands()
    states = {name: stands[f"Predictor {name}"][2]["activeModelState"] for name in NAMES}
    assert states == dict.fromkeys(NAMES, "Loaded")
    assert set(stands["mesh"]) == NAMES
    assert set(world.mesh.loads.values()) == {1}
    assert len(world.mesh.loads) == 6
    assert {what.partition(" ")[2] for what in fate.moments} >= {
        *("LivelyMesh.apply", "LivelyMesh.delete", "LivelyMesh.set_runtimes"),
        *("WatchedKube.apply", "WatchedKube.apply_status", "WatchedKube.event"),
    }


@pytest.mark.parametrize("turn", range(TURNS))
async def test_controller_killed_at_any_moment_is_followed_by_one_that_loses_nothing(turn: int):
    whole, fate = await lived(None)
    for at in range(turn, len(fate.moments), TURNS):
        world, died = await lived(at)
        assert died.is_over.is_set(), at
        when = f"{at}, {died.moments[-1]}"
        assert world.stands() == whole.stands(), when
        # Nothing twice; what users changed before anybody led again was never asked for.
        assert set(world.mesh.loads.values()) == {1}, when
        assert world.mesh.loads.keys() <= whole.mesh.loads.keys(), when
        assert Counter(world.mesh.applied) <= Counter(whole.mesh.applied), when
        assert world.kube.shown <= told(world), when  # no status without its event
