"""The controller's side of the management service, against a real node."""

import asyncio

import pytest

from mesh.controller.management import PREDICTOR, RUNTIME, Connections, Unfit
from mesh.controller.queue import Refused
from mesh.peers.tls import NodeTls
from tests.support.builders import document
from tests.support.world import begin, world

OWNER = "kubernetes/ns"


def predictor(name: str = "p", **spec) -> dict:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": document() | spec,
    }


def connections(w) -> Connections:
    return Connections(f"127.0.0.1:{w.running.management_port}", None)


async def test_predictors_are_applied_followed_and_deleted():
    async with world() as w, connections(w).connected() as mesh:
        await mesh.apply(predictor(), OWNER)
        seen = []

        async def follow() -> None:
            async for name, obj in mesh.follow(PREDICTOR):
                seen.append((name, obj and obj["status"]["activeModelState"]))
                if obj is None:
                    return

        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(follow())
            await w.reaches("p", "Loaded  UpToDate")
            (shown,) = await mesh.read(PREDICTOR)
            assert shown.object["metadata"]["annotations"] == {"wmlserving.ai.ibm.com/owner": OWNER}
            await mesh.delete("p", "kubernetes/other")
            assert "p" in w.running.node.view.predictors
            await mesh.delete("p", OWNER)
            await mesh.delete("p", OWNER)  # is gone already
        assert ("p", "Loaded") in seen
        assert seen[-1] == ("p", None)


async def test_following_says_when_it_has_begun_also_where_there_is_nothing():
    async with world() as w, connections(w).connected() as mesh:
        begun = asyncio.Event()
        following = mesh.follow(PREDICTOR, begun.set)
        first = begin(anext(following))
        async with asyncio.timeout(10):
            await begun.wait()
            assert not first.done()
            await mesh.apply(predictor(), OWNER)
            assert (await first).name == "p"


async def test_refusals_say_whether_another_try_can_help():
    async with world() as w, connections(w).connected() as mesh:
        with pytest.raises(Unfit, match=r"spec\.path") as caught:
            await mesh.apply(predictor(path=""), OWNER)
        assert not caught.value.is_taken
        await w.apply("theirs")
        with pytest.raises(Unfit, match="belongs to 'nobody'") as caught:
            await mesh.apply(predictor("theirs"), OWNER)
        assert caught.value.is_taken


async def test_runtimes_are_told_and_read():
    runtime = {
        "metadata": {"name": "other"},
        "spec": {"supportedModelTypes": [{"name": "thing", "autoSelect": True}]},
        "status": {"state": "Zero", "since": "2026-01-01T00:00:00Z"},
    }
    async with world() as w, connections(w).connected() as mesh:
        await mesh.set_runtimes([runtime])
        (shown,) = await mesh.read(RUNTIME)
        assert (shown.name, shown.object["status"]["state"]) == ("other", "Zero")
        with pytest.raises(Unfit):
            await mesh.set_runtimes([{**runtime, "status": {"state": "Sideways"}}])


async def test_mesh_that_is_not_there_is_for_later(tmp_path):
    async with Connections("127.0.0.1:1", None).connected() as mesh:
        following = anext(mesh.follow(PREDICTOR))
        reading = mesh.read(PREDICTOR)
        for call in (mesh.apply(predictor(), OWNER), mesh.delete("p", OWNER), reading, following):
            with pytest.raises(Refused, match="UNAVAILABLE"):
                await call
    with pytest.raises(Refused, match="no certificate"):
        async with Connections("127.0.0.1:1", NodeTls(tmp_path)).connected():
            pass
