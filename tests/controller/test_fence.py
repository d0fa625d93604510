"""A leader that stands still for longer than its lease lasts, with work in its hands."""

import asyncio
import copy
from collections import Counter

import pytest

from mesh.controller.controller import Controller, Place
from mesh.controller.leader import DURATION_S, RENEW_S, LostLead
from mesh.controller.pods import Installation
from mesh.ops.clock import Clock
from tests.controller.runtimes import shipped
from tests.controller.test_killed import LivelyMesh
from tests.controller.test_site import predictor
from tests.support.kube_memory import MemoryKube
from tests.support.virtual_time import EPOCH_S, loop_time_s
from tests.support.world import begin

WRITES = ("apply", "status", "delete", "event")
LEASE = ("Lease", "ns", "wmlserving-controller")


class Stood:
    """A controller that leads, and rests: `freeze` has time go on without it."""

    def __init__(self) -> None:
        self.kube, self.mesh = MemoryKube(), LivelyMesh()
        self.lost_s = 0.0
        clock = Clock(lambda: EPOCH_S + self._now_s(), self._now_s)
        place = Place("ns", frozenset({"ns"}), "one", Installation("image"), None)
        mesh = self.mesh
        self.controller = Controller(self.kube, lambda _: mesh, place, clock)  # type: ignore[arg-type,return-value]
        self.kube.put(copy.deepcopy(shipped()) | {"metadata": {"name": "r", "namespace": "ns"}})
        for name in ("p", "q"):
            self.kube.put(predictor(name, "a"))
        self.running = begin(self.controller.run())

    def freeze(self) -> None:
        """While it stands still, users change everything, and so does the mesh."""
        self.lost_s += DURATION_S + 5
        self.kube.put(predictor("p", "b"))
        self.kube.remove("Predictor", "q")
        self.mesh.say("p", available=False)

    def written(self) -> dict[str, Counter[str] | list[str]]:
        calls = self.kube.calls
        return {
            "kube": Counter({verb: calls[verb] for verb in WRITES}),
            "applied": list(self.mesh.applied),
            "deleted": list(self.mesh.deleted),
        }

    def _now_s(self) -> float:
        return loop_time_s() + self.lost_s


async def test_leader_that_was_frozen_writes_nothing_once_another_one_leads():
    stood = Stood()
    await asyncio.sleep(5)
    before = stood.written()
    assert before["applied"] == ["p", "q"]
    lease = stood.kube.objects[LEASE]
    stood.kube.put({**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
    stood.freeze()
    async with asyncio.timeout(RENEW_S + 1):
        with pytest.raises(ExceptionGroup) as ended:
            await stood.running
    assert ended.group_contains(LostLead)
    assert stood.written() == before
    assert stood.kube.objects[LEASE]["spec"]["holderIdentity"] == "two"


async def test_leader_that_was_frozen_goes_on_where_no_other_one_is():
    stood = Stood()
    await asyncio.sleep(5)
    stood.freeze()
    await asyncio.sleep(RENEW_S + 5)
    assert stood.written()["applied"] == ["p", "q", "p"]
    assert stood.written()["deleted"] == ["q"]
    assert stood.kube.status("Predictor", "p")["activeModelState"] == "Loaded"
    stood.running.cancel()
    await asyncio.wait([stood.running])
