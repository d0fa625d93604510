"""Two controllers with tokens of their own contend for the one Lease of a real API server.

The mesh is real, without etcd. What each of them did is in the audit log of the API server, by its
token; what came of it in the mesh, in the runtime's own counts of loads.
"""

import itertools
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.controller.leader import CONFLICT, DURATION_S, RENEW_S
from mesh.controller.names import CONTROLLER
from tests.support.kube_audit import NAMESPACE, Call
from tests.support.kube_control_plane import ControlPlane, kubectl
from tests.support.kube_controllers import ControllerProcess
from tests.support.kube_predictors import predictor
from tests.support.mesh_stand import MeshStand, eventually, small_mesh

# What a busy machine adds to the times of an election.
SLACK_S = 8.0
REST_S = 60.0
LEASE = f"lease/{CONTROLLER}"
_names = (f"c{number}" for number in itertools.count())


@dataclass
class Pair:
    """A leader and one that waits, over a mesh of one node with a runtime. `lives`: both."""

    plane: ControlPlane
    stand: MeshStand
    folder: Path
    leader: ControllerProcess = field(init=False)
    waiting: ControllerProcess = field(init=False)
    lives: list[ControllerProcess] = field(default_factory=list)
    signalled_s: float = 0.0

    async def begin(self) -> None:
        """Both at once; which one leads is known then."""
        first, second = self.another(), self.another()

        async def is_settled() -> bool:
            return first.is_ready and second.is_ready and first.is_leading != second.is_leading

        await eventually(is_settled, self.log, REST_S)
        self.leader, self.waiting = (first, second) if first.is_leading else (second, first)

    def another(self) -> ControllerProcess:
        keeper = self.stand.nodes[0].internal
        life = ControllerProcess(self.plane, self.folder, next(_names), keeper)
        life.start()
        self.lives.append(life)
        return life

    def apply(self, *names: str, path: str = "a") -> None:
        items = [predictor(name, path) for name in names]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        self.kubectl("apply", "--server-side", "-f", "-", stdin=text)

    def delete(self, *names: str) -> None:
        self.kubectl("delete", "predictor", *names)

    async def until_shown(self, **states: str) -> None:
        """These and no others, each in the state of its active model."""
        shown: dict[str, str] = {}

        async def are() -> bool:
            shown.clear()
            shown.update(self.shown())
            return shown == states

        await eventually(are, lambda: f"{shown}\n{self.log()}", REST_S)

    def shown(self) -> dict[str, str]:
        found = json.loads(self.kubectl("get", "predictors", "-o=json"))["items"]
        return {it["metadata"]["name"]: _state(it.get("status", {})) for it in found}

    async def until_followed(self, within_s: float) -> float:
        """Until the one that waited leads; how many seconds after a signal to the other it did."""

        async def leads() -> bool:
            return self.waiting.is_leading

        await eventually(leads, self.log, within_s)
        return time.monotonic() - self.signalled_s

    def signal(self, number: signal.Signals) -> None:
        """To the leader."""
        self.signalled_s = time.monotonic()
        self.leader.signal(number)

    async def loads(self) -> Counter[str]:
        """By the Predictor and its path."""
        return Counter((await self._runtime())["loads"])

    async def loaded(self) -> set[str]:
        return set((await self._runtime())["loaded"])

    def holder(self) -> str:
        told = self.kubectl("get", LEASE, "-o=jsonpath={.spec.holderIdentity}")
        return told.rpartition("-")[0]

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl(self.plane, f"--namespace={NAMESPACE}", *arguments, stdin=stdin)

    def log(self) -> str:
        return "\n".join(f"{life.name}: {life.log()[-2000:]}" for life in self.lives)

    async def _runtime(self) -> dict[str, Any]:
        runtime = self.stand.nodes[1].runtime
        assert runtime is not None
        return await runtime.read()


def _state(status: dict[str, Any]) -> str:
    return f"{status.get('activeModelState')}"


@asynccontextmanager
async def pair(plane: ControlPlane, folder: Path) -> AsyncIterator[Pair]:
    """Nothing of it is left at the end, no Predictor either."""
    async with small_mesh(folder / "mesh", nodes=1) as stand:
        both = Pair(plane, stand, folder)
        try:
            await both.begin()
            yield both
        finally:
            for life in both.lives:
                life.stop()
            both.kubectl("delete", "predictors", "--all")
            both.kubectl("delete", LEASE, "--ignore-not-found")


def written(calls: list[Call]) -> list[Call]:
    """What a leader writes; an attempt upon the Lease is none."""
    return [call for call in calls if call.is_write and call.resource != "leases"]


def only_waits(life: ControllerProcess) -> bool:
    """It reads the Lease, and nothing else; where both stood at once, it was refused it."""
    calls = life.calls()
    is_refused = all(call.code == CONFLICT for call in calls if call.is_write)
    return {call.resource for call in calls} == {"leases"} and is_refused


async def test_of_two_one_leads_and_hands_over_at_once_when_it_ends(
    plane: ControlPlane, tmp_path: Path
):
    async with pair(plane, tmp_path) as both:
        both.apply("p")
        await both.until_shown(p="Loaded")
        assert both.waiting.is_ready
        assert both.holder() == both.leader.name
        assert (both.leader.is_leading, both.waiting.is_leading) == (True, False)
        assert only_waits(both.waiting)
        both.signal(signal.SIGTERM)
        taken_s = await both.until_followed(RENEW_S + SLACK_S)
        assert both.leader.ended() == 0
        assert both.holder() == both.waiting.name
        both.apply("p", path="b")
        both.apply("q")
        await both.until_shown(p="Loaded", q="Loaded")
        assert set((await both.loads()).values()) == {1}
        print(f"A leader that ended was followed after {taken_s:.1f} s.")


async def test_leader_that_is_killed_is_followed_within_its_lease_and_nothing_is_lost_or_done_twice(
    plane: ControlPlane, tmp_path: Path
):
    async with pair(plane, tmp_path) as both:
        both.apply("p", "q", "gone")
        await both.until_shown(p="Loaded", q="Loaded", gone="Loaded")
        both.signal(signal.SIGKILL)
        both.apply("late")
        both.apply("q", path="b")
        both.delete("gone")
        taken_s = await both.until_followed(DURATION_S + RENEW_S + SLACK_S)
        assert taken_s > DURATION_S - RENEW_S - 1  # not while the dead one might be alive
        await both.until_shown(p="Loaded", q="Loaded", late="Loaded")

        async def converged() -> bool:
            return {model.rpartition("-")[0] for model in await both.loaded()} == {
                *("p", "q", "late")
            }

        await eventually(converged, both.log, REST_S)
        loads = await both.loads()
        assert set(loads.values()) == {1}, loads  # p, q of before and after, gone, late
        assert len(loads) == 5
        # Of what the first one had told, the second one told nothing again.
        told = Counter(call.about for call in written(both.waiting.calls()))
        assert told["p"] == 0, told
        print(f"A leader that was killed was followed after {taken_s:.1f} s.")


async def test_leader_that_was_frozen_for_longer_than_its_lease_ends_and_writes_nothing(
    plane: ControlPlane, tmp_path: Path
):
    async with pair(plane, tmp_path) as both:
        both.apply("p", "q", "gone")
        await both.until_shown(p="Loaded", q="Loaded", gone="Loaded")
        both.signal(signal.SIGSTOP)
        # All of this waits for it in its connections, to the API server and to the mesh.
        both.apply("p", path="b")
        both.apply(*(f"late{number}" for number in range(5)))
        both.delete("gone")
        await both.until_followed(DURATION_S + RENEW_S + SLACK_S)
        late = {f"late{number}": "Loaded" for number in range(5)}
        await both.until_shown(p="Loaded", q="Loaded", **late)
        before, loads = both.leader.calls(), await both.loads()
        both.signal(signal.SIGCONT)
        assert both.leader.ended() != 0
        assert "the lead is lost" in both.leader.log()
        after = both.leader.calls()[len(before) :]
        assert written(after) == [], both.log()
        tried = [call.code for call in after if call.resource == "leases" and call.is_write]
        assert set(tried) <= {CONFLICT}, after
        assert (both.holder(), both.waiting.is_leading) == (both.waiting.name, True)
        assert await both.loads() == loads
        both.apply("q", path="c")  # and the other one goes on
        await both.until_shown(p="Loaded", q="Loaded", **late)
