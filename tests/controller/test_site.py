"""A namespace under a controller: an API server in memory, and a mesh that is played."""

import asyncio
import copy
from contextlib import asynccontextmanager

import pytest

from mesh.controller.management import PREDICTOR, Shown, Unfit
from mesh.controller.names import workload_name
from mesh.controller.pods import Installation
from mesh.controller.predictors import WRITE_S, news
from mesh.controller.queue import Refused
from mesh.controller.site import Site
from mesh.kube.port import KubeFailed
from tests.controller.runtimes import shipped
from tests.support.builders import document
from tests.support.kube_memory import MemoryKube
from tests.support.virtual_time import CLOCK, loop_time_s

OWNER = "kubernetes/ns"


class PlayedMesh:
    """What management says. `refusals` by name; `is_away` breaks every call and stream."""

    def __init__(self) -> None:
        self.shown: dict[str, dict] = {}
        self.applied: list[str] = []
        self.deleted: list[str] = []
        self.runtimes: list[list[str]] = []
        self.refusals: dict[str, Unfit] = {}
        self.is_away = False
        self._news: list[asyncio.Queue] = []

    def say(self, name: str, owner: str = OWNER, **status: object) -> None:
        """A Predictor is so now."""
        obj = copy.deepcopy(self.shown.get(name) or {"spec": document()})
        obj["metadata"] = {"name": name, "annotations": {"wmlserving.ai.ibm.com/owner": owner}}
        obj["status"] = {**obj.get("status", {}), **status}
        self.shown[name] = obj
        self._tell(Shown(name, obj))

    def forget(self, name: str) -> None:
        self.shown.pop(name, None)
        self._tell(Shown(name, None))

    def go(self) -> None:
        self.is_away = True
        self._tell(None)

    @asynccontextmanager
    async def connected(self):
        self._check()
        yield self

    async def apply(self, obj: dict, owner: str) -> None:
        self._check()
        name = obj["metadata"]["name"]
        self.applied.append(name)
        if name in self.refusals:
            raise self.refusals[name]
        self.shown[name] = {"spec": obj["spec"]}
        self.say(
            name, owner, available=True, activeModelState="Loading", transitionStatus="UpToDate"
        )

    async def delete(self, name: str, owner: str) -> None:
        self._check()
        self.deleted.append(name)
        self.forget(name)

    async def set_runtimes(self, runtimes) -> None:
        self._check()
        self.runtimes.append([item["metadata"]["name"] for item in runtimes])

    async def read(self, kind: str):
        self._check()
        return [Shown(name, obj) for name, obj in self.shown.items()] if kind == PREDICTOR else []

    async def follow(self, kind: str, begun=None):
        await asyncio.sleep(0.1)
        there = await self.read(kind)
        queue: asyncio.Queue = asyncio.Queue()
        if kind == PREDICTOR:
            self._news.append(queue)
        if begun is not None:
            begun()
        for item in there:
            yield item
        while (item := await queue.get()) is not None:
            yield item
        raise Refused("the mesh: UNAVAILABLE")

    def _check(self) -> None:
        if self.is_away:
            raise Refused("the mesh: UNAVAILABLE")

    def _tell(self, item) -> None:
        for queue in self._news:
            queue.put_nowait(item)


def predictor(name: str = "p", path: str = "a") -> dict:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": document(path),
    }


@asynccontextmanager
async def site(kube: MemoryKube, mesh: PlayedMesh):
    running = Site(kube, "ns", Installation("image"), mesh.connected, CLOCK)
    task = asyncio.get_running_loop().create_task(running.run())
    yield running
    task.cancel()
    await asyncio.wait([task])


def status_of(kube: MemoryKube, name: str = "p") -> dict:
    return kube.status("Predictor", name)


async def test_predictor_goes_to_the_mesh_and_its_status_comes_back():
    kube, mesh = MemoryKube(), PlayedMesh()
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(2)
        assert mesh.applied == ["p"]
        assert status_of(kube)["activeModelState"] == "Loading"
        mesh.say("p", activeModelState="Loaded")
        await asyncio.sleep(1)
        assert status_of(kube) == {
            "available": True,
            "activeModelState": "Loaded",
            "transitionStatus": "UpToDate",
            "grpcEndpoint": "grpc://wml-serving:8033",
            "httpEndpoint": "http://wml-serving:8008",
        }
        kube.remove("Predictor", "p")
        await asyncio.sleep(1)
        assert mesh.deleted == ["p"]
    assert [reason for _, reason, _ in kube.events] == ["Loading", "Loaded"]


async def test_predictor_that_is_gone_before_it_is_followed_is_applied_again():
    kube, mesh = MemoryKube(), PlayedMesh()
    mesh.say("p", available=True, activeModelState="Loaded", transitionStatus="UpToDate")
    kube.put(predictor())
    async with site(kube, mesh) as running:
        while not running.is_connected:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        # All were read a moment ago; nobody follows yet who would be told.
        mesh.forget("p")
        await asyncio.sleep(5)
        assert mesh.applied[-1:] == ["p"]
        assert status_of(kube)["activeModelState"] == "Loading"


async def test_event_that_cannot_be_written_is_written_later():
    kube, mesh = MemoryKube(), PlayedMesh()
    kube.bad_events = 3
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(1)
        assert status_of(kube)["activeModelState"] == "Loading"
        mesh.say("p", activeModelState="Loaded")
        await asyncio.sleep(30)
        assert status_of(kube)["activeModelState"] == "Loaded"
    assert kube.bad_events == 0
    assert [reason for _, reason, _ in kube.events] == ["Loading", "Loaded"]


async def test_calls_for_a_predictor_are_few_and_none_once_it_rests():
    kube, mesh = MemoryKube(), PlayedMesh()
    async with site(kube, mesh):
        await asyncio.sleep(5)
        before = kube.calls.total()
        for number in range(2_000):
            kube.put(predictor(f"p{number}"))
        await asyncio.sleep(60)
        for number in range(2_000):
            mesh.say(f"p{number}", activeModelState="Loaded")
        await asyncio.sleep(60)
        assert status_of(kube, "p1999")["activeModelState"] == "Loaded"
        calls = kube.calls.total() - before
        assert calls / 2_000 <= 5, kube.calls
        await asyncio.sleep(600)
        assert kube.calls.total() - before - calls < 50
    assert len(mesh.applied) == 2_000


async def test_status_is_written_twice_a_second_at_most_and_its_last_word_always():
    kube, mesh = MemoryKube(), PlayedMesh()
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(2)
        before, began_s = kube.calls["status"], loop_time_s()
        for number in range(100):
            mesh.say("p", totalCopies=number + 1)
            await asyncio.sleep(0.05)
        await asyncio.sleep(1)
        most = (loop_time_s() - began_s) / WRITE_S + 1
        assert 5 < kube.calls["status"] - before <= most
        assert status_of(kube)["totalCopies"] == 100


async def test_refused_spec_is_shown_and_not_sent_again_until_it_changes():
    kube, mesh = MemoryKube(), PlayedMesh()
    mesh.refusals["p"] = Unfit("spec.path: required", is_taken=False)
    mesh.refusals["q"] = Unfit("predictor 'q' belongs to 'nobody'", is_taken=True)
    async with site(kube, mesh):
        kube.put(predictor("p"))
        kube.put(predictor("q"))
        await asyncio.sleep(120)
        assert sorted(mesh.applied) == ["p", "q"]
        shown = status_of(kube, "p")
        assert shown["transitionStatus"] == "InvalidSpec"
        failure = {"reason": "InvalidPredictorSpec", "message": "spec.path: required"}
        assert shown["lastFailureInfo"] == failure
        taken = status_of(kube, "q")["lastFailureInfo"]["message"]
        assert taken == "Predictor already exists with the same name from a different source"
        mesh.refusals.clear()
        kube.put(predictor("p", path="b"))
        await asyncio.sleep(2)
        assert status_of(kube, "p")["transitionStatus"] == "UpToDate"
        assert "lastFailureInfo" not in status_of(kube, "p")


async def test_mesh_that_lost_everything_is_told_everything_and_other_owners_are_left_alone():
    kube, mesh = MemoryKube(), PlayedMesh()
    mesh.say("theirs", owner="", available=True)
    mesh.say("left", available=True)  # was deleted while no controller ran
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(2)
        assert mesh.deleted == ["left"]
        mesh.go()
        await asyncio.sleep(30)
        mesh.shown.clear()
        mesh.is_away = False
        await asyncio.sleep(30)
        assert mesh.applied == ["p", "p"]


async def test_what_the_mesh_has_already_is_not_applied_again():
    kube, mesh = MemoryKube(), PlayedMesh()
    mesh.shown["p"] = {"spec": document()}
    mesh.say("p", available=True, activeModelState="Loaded", transitionStatus="UpToDate")
    kube.put(predictor())
    async with site(kube, mesh):
        await asyncio.sleep(5)
        assert mesh.applied == []
        assert status_of(kube)["activeModelState"] == "Loaded"


async def test_object_made_anew_under_the_same_name_gets_its_status():
    kube, mesh = MemoryKube(), PlayedMesh()
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(2)
        kube.remove("Predictor", "p")
        kube.put(predictor())
        await asyncio.sleep(3)
        assert status_of(kube)["activeModelState"] == "Loading"


@pytest.mark.parametrize(
    "problem", [KubeFailed(422, "spec.template: Invalid value"), RuntimeError("what nobody saw")]
)
async def test_runtime_that_cannot_be_brought_about_does_not_hold_up_the_others(problem: Exception):
    kube, mesh = MemoryKube(), PlayedMesh()
    for name in ("bad", "good"):
        runtime = shipped()
        runtime["metadata"] = {"name": name, "namespace": "ns"}
        kube.put(runtime)
    kube.refusals[workload_name("bad")] = problem
    async with site(kube, mesh):
        await asyncio.sleep(2)
        assert "good" in mesh.runtimes[-1]
        assert ("Deployment", "ns", workload_name("good")) in kube.objects


async def test_runtimes_are_told_to_the_mesh_once_all_were_looked_at():
    kube, mesh = MemoryKube(), PlayedMesh()
    runtime = shipped()
    runtime["metadata"]["namespace"] = "ns"
    kube.put(runtime)
    async with site(kube, mesh):
        await asyncio.sleep(5)
        assert mesh.runtimes[-1] == [runtime["metadata"]["name"]]
        count = len(mesh.runtimes)
        mesh.go()
        await asyncio.sleep(5)
        mesh.is_away = False
        await asyncio.sleep(15)
        assert len(mesh.runtimes) > count


async def test_configuration_that_is_wrong_is_named_and_the_last_good_one_stays():
    kube, mesh = MemoryKube(), PlayedMesh()
    meta = {"name": "wml-serving-config", "namespace": "ns"}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}
    async with site(kube, mesh):
        kube.put(predictor())
        kube.put({**config_map, "data": {"config.yaml": "inferenceServiceName: other"}})
        await asyncio.sleep(3)
        assert status_of(kube)["grpcEndpoint"] == "grpc://other:8033"
        kube.bad_events = 1
        kube.put({**config_map, "data": {"config.yaml": "podsPerRuntime: 0"}})
        await asyncio.sleep(13)
        assert status_of(kube)["grpcEndpoint"] == "grpc://other:8033"
    (told,) = [text for name, _, text in kube.events if name == "wml-serving-config"]
    assert "podsPerRuntime" in told
    kube.remove("ConfigMap", "wml-serving-config-in-force")
    async with site(kube, mesh):
        await asyncio.sleep(3)
        # Wrong from the start and nothing kept: the defaults.
        assert status_of(kube)["grpcEndpoint"] == "grpc://wml-serving:8033"
        kube.put({**config_map, "data": {"config.yaml": "inferenceServiceName: other"}})
        await asyncio.sleep(3)
        kept = ("ConfigMap", "ns", "wml-serving-config-in-force")
        kube.remove("ConfigMap", "wml-serving-config-in-force")
        await asyncio.sleep(3)
        assert kept in kube.objects
        text = kube.objects["ConfigMap", "ns", "wml-serving-config"]["data"]
        kube.remove("ConfigMap", "wml-serving-config")  # the same text anew, of another owner
        kube.put({**config_map, "metadata": {**meta}, "data": text})
        await asyncio.sleep(3)
        uid = kube.objects["ConfigMap", "ns", "wml-serving-config"]["metadata"]["uid"]
        assert kube.objects[kept]["metadata"]["ownerReferences"][0]["uid"] == uid
        kube.put({**config_map, "data": {"config.yaml": "podsPerRuntime: 0"}})
        await asyncio.sleep(3)
    async with site(kube, mesh):  # and for a controller that begins with it
        kube.put(predictor("q"))
        await asyncio.sleep(3)
        assert status_of(kube, "q")["grpcEndpoint"] == "grpc://other:8033"
        assert status_of(kube)["grpcEndpoint"] == "grpc://other:8033"


async def test_api_server_away_changes_nothing_and_what_came_meanwhile_is_caught_up():
    kube, mesh = MemoryKube(), PlayedMesh()
    async with site(kube, mesh):
        kube.put(predictor())
        await asyncio.sleep(2)
        kube.go()
        mesh.say("p", activeModelState="Loaded")
        await asyncio.sleep(60)
        assert not mesh.deleted
        kube.come_back()
        await asyncio.sleep(90)
        assert status_of(kube)["activeModelState"] == "Loaded"


def test_news_tell_the_story():
    blocked = {"reason": "ModelLoadFailed", "message": "no such file"}
    steps = [
        {"activeModelState": "Loading", "transitionStatus": "UpToDate"},
        {"activeModelState": "Loaded", "transitionStatus": "UpToDate"},
        {"activeModelState": "Loaded", "transitionStatus": "InProgress"},
        {
            "activeModelState": "Loaded",
            "transitionStatus": "BlockedByFailedLoad",
            "lastFailureInfo": blocked,
        },
        {"activeModelState": "Loaded", "transitionStatus": "UpToDate"},
        {"activeModelState": "Failed", "transitionStatus": "UpToDate", "lastFailureInfo": blocked},
        {
            "activeModelState": "Pending",
            "transitionStatus": "UpToDate",
            "lastFailureInfo": {"reason": "RuntimeUnhealthy", "message": "Waiting"},
        },
    ]
    told = [
        (reason, is_warning)
        for before, after in zip([{}, *steps], steps, strict=False)
        for reason, _, is_warning in news(before, after)
    ]
    assert told == [
        ("Loading", False),
        ("Loaded", False),
        ("Updating", False),
        ("BlockedByFailedLoad", True),
        ("Updated", False),
        ("Failed", True),
        ("RuntimeUnhealthy", True),
    ]
