"""Which namespaces are worked on, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from mesh.controller.estate import Estate
from mesh.controller.names import ENABLED
from tests.support.kube_memory import MemoryKube
from tests.support.world import begin


@dataclass
class Work:
    """Work that lasts until it is cancelled, and takes a second to let go."""

    namespace: str
    log: list[str]
    is_synced: bool = False

    async def run(self) -> None:
        self.log.append(f"begin {self.namespace}")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1.0)
            self.log.append(f"end {self.namespace}")


@dataclass
class Place:
    kube: MemoryKube = field(default_factory=MemoryKube)
    log: list[str] = field(default_factory=list)

    def namespace(self, name: str, **labels: str) -> None:
        labels = {key.replace("_", "-"): value for key, value in labels.items()}
        meta = {"name": name, "namespace": "", "labels": labels}
        self.kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})

    @asynccontextmanager
    async def estate(self, told: frozenset[str] | None) -> AsyncIterator[Estate[Work]]:
        estate = Estate(self.kube, told, lambda name: Work(name, self.log))
        running = begin(estate.run())
        await asyncio.sleep(1.0)
        yield estate
        running.cancel()
        await asyncio.wait({running})


LABELLED = {ENABLED: "true"}


async def test_namespaces_that_it_was_told_are_worked_on_whatever_their_labels():
    place = Place()
    place.namespace("c", **LABELLED)
    async with place.estate(frozenset({"a", "b"})) as estate:
        assert place.log == ["begin a", "begin b"]
        assert estate.why_not_ready == "not listed yet in a, b"
        estate.works["a"].is_synced = True
        assert estate.why_not_ready == "not listed yet in b"
        estate.works["b"].is_synced = True
        assert estate.why_not_ready == ""
    assert place.kube.calls["list"] == 0  # which it may have no right to


async def test_all_that_are_labelled_are_followed():
    place = Place()
    place.namespace("a", **LABELLED)
    place.namespace("b")
    place.namespace("c", **{ENABLED: "false"})
    async with place.estate(None) as estate:
        assert set(estate.works) == {"a"}
        place.namespace("b", **LABELLED)
        await asyncio.sleep(0.1)
        assert set(estate.works) == {"a", "b"}
        place.namespace("a")
        place.kube.remove("Namespace", "b", "")
        await asyncio.sleep(2.0)
        assert not estate.works
        assert place.log[:2] == ["begin a", "begin b"]
        assert sorted(place.log[2:]) == ["end a", "end b"]


async def test_namespace_that_is_being_deleted_is_left():
    place = Place()
    place.namespace("a", **LABELLED)
    async with place.estate(None) as estate:
        meta = {"name": "a", "namespace": "", "labels": LABELLED, "deletionTimestamp": "2026"}
        place.kube.put({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        await asyncio.sleep(0.1)
        assert not estate.works


async def test_namespace_that_is_taken_on_again_has_been_let_go_first():
    place = Place()
    place.namespace("a", **LABELLED)
    async with place.estate(None) as estate:
        place.namespace("a")
        await asyncio.sleep(0.1)
        place.namespace("a", **LABELLED)
        await asyncio.sleep(0.1)
        assert set(estate.works) == {"a"}
        assert place.log == ["begin a"]
        await asyncio.sleep(1.0)
        assert place.log == ["begin a", "end a", "begin a"]


async def test_namespaces_stay_while_the_api_server_is_away():
    place = Place()
    place.namespace("a", **LABELLED)
    async with place.estate(None) as estate:
        place.kube.is_away = True
        await asyncio.sleep(60.0)
        assert set(estate.works) == {"a"}
        assert estate.why_not_ready == ""


async def test_what_is_labelled_and_lacks_something_holds_up_nobody():
    place = Place()
    place.namespace("a", **LABELLED)
    async with place.estate(None) as estate:
        assert not estate.works["a"].is_synced
        assert estate.why_not_ready == ""


async def test_it_is_not_ready_before_it_knows_the_namespaces():
    place = Place()
    place.kube.is_away = True
    async with place.estate(None) as estate:
        assert estate.why_not_ready == "the namespaces have not been listed yet"


async def test_work_that_fails_in_a_way_that_is_not_foreseen_ends_all_of_it():
    """A fault of the program: Kubernetes starts it again, which is better than half of one."""

    class Broken(Work):
        async def run(self) -> None:
            raise ZeroDivisionError

    estate = Estate(MemoryKube(), frozenset({"a"}), lambda name: Broken(name, []))
    with pytest.raises(ExceptionGroup, match="unhandled errors"):
        await estate.run()
