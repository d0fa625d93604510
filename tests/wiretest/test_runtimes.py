"""Runtimes as who starts and stops them sets and reads them, over real nodes on loopback."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId
from mesh.ops.clock import wall_s
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Put
from mesh.wire import records
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.builders import RUNTIME
from tests.support.fake_runtime import FakeRuntime
from tests.support.ports import free_ports
from tests.support.world import DEADLINE_S, World, begin, eventually, world

SINCE = "2023-11-14T22:13:20Z"
UNHEALTHY = "Waiting for supporting runtime Pod to become available"


def runtime(name: str = RUNTIME.name, state: str = "Zero", **spec: Any) -> dict[str, Any]:
    types = [{"name": it.name, "version": it.version} for it in RUNTIME.model_types]
    return {
        "metadata": {"name": name},
        "spec": {"supportedModelTypes": types} | spec,
        "status": {"state": state, "since": SINCE},
    }


async def set_(w: World, *runtimes: dict[str, Any]) -> None:
    await w.manage.SetRuntimes(pb.SetRuntimesRequest(json=map(json.dumps, runtimes)))


async def reading(w: World, name: str = "") -> dict[str, dict[str, Any]]:
    request = pb.ReadRequest(kind=pb.RUNTIME, name=name)
    return {event.name: json.loads(event.json) async for event in w.manage.Read(request)}


async def following(w: World, kind: pb.Kind) -> AsyncGenerator[dict[str, Any], None]:
    """The status of each thing that is shown."""
    call = w.manage.Read(pb.ReadRequest(kind=kind, follow=True))
    try:
        async for event in call:
            if event.json:
                yield json.loads(event.json)["status"]
    finally:
        call.cancel()


async def until(
    statuses: AsyncGenerator[dict[str, Any], None], holds: Callable[[dict[str, Any]], object]
) -> list[dict[str, Any]]:
    """All statuses up to the first for which it holds."""
    seen = []
    async with asyncio.timeout(DEADLINE_S):
        async for status in statuses:
            seen.append(status)
            if holds(status):
                break
    return seen


@asynccontextmanager
async def node(registry: MemoryRegistry, name: str, *, is_router: bool) -> AsyncIterator[World]:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    identity = Identity(NodeId(name), None if is_router else RUNTIME, address=address)
    runtime = FakeRuntime()
    async with world(runtime, identity=identity, registry=registry, management=address) as w:
        yield w


async def test_runtimes_are_set_as_a_whole_and_read():
    async with world() as w:
        await set_(w, runtime("a"), runtime("b", "Running"), runtime("off", disabled=True))
        shown = await reading(w)
        assert list(shown) == ["a", "b"]
        assert shown["a"]["status"] == {
            "state": "Zero",
            "since": SINCE,
            "wanted": "",
            "lastUse": "",
            "predictors": 0,
        }
        assert shown["b"]["status"]["state"] == "Running"
        assert list(await reading(w, "b")) == ["b"]
        await set_(w, runtime("b", "Starting"))
        shown = await reading(w)
        assert [(name, it["status"]["state"]) for name, it in shown.items()] == [("b", "Starting")]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reading(w, "a")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_setting_what_is_set_writes_nothing_and_what_is_gone_takes_its_wish_along():
    registry = MemoryRegistry()
    async with world(registry=registry) as w:
        await set_(w, runtime("a"), runtime("b"))
        before = (await registry.list("")).revision
        await set_(w, runtime("b"), runtime("a"))
        assert (await registry.list("")).revision == before
        for name in ("a", "b"):
            wish = f'{{"runtime":"{name}","wanted_s":5}}'.encode()
            await registry.commit([Put(records.WANTED + name, wish)])
        await eventually(lambda: len(w.running.node.view.wishes) == 2)
        assert (await reading(w, "a"))["a"]["status"]["wanted"] == "1970-01-01T00:00:05Z"
        await set_(w, runtime("b"))
        assert [it.key for it in (await registry.list(records.WANTED)).entries] == ["wanted/b"]
        assert list(w.running.node.view.wishes) == ["b"]


async def test_set_with_anything_wrong_changes_nothing_and_says_all_of_it():
    async with world() as w:
        await set_(w, runtime("a"))
        bad = [runtime("b"), runtime("b"), runtime("c", "Up"), {"metadata": {"name": "d"}}]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await set_(w, *bad)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (caught.value.details() or "").splitlines() == [
            "json[1].metadata.name: given twice",
            "json[2].status.state: must be 'Zero', 'Starting' or 'Running'",
            "json[3].spec: required",
            "json[3].status: required",
        ]
        assert list(await reading(w)) == ["a"]


async def test_predictors_are_counted_by_type_and_by_name():
    async with world() as w:
        await set_(w, runtime("a"), runtime("b", supportedModelTypes=[{"name": "onnx"}]))
        await w.apply("p")
        await w.apply("q", "b")
        await w.apply("o", type_name="onnx")

        async def counted() -> bool:
            shown = (await reading(w)).items()
            return {name: it["status"]["predictors"] for name, it in shown} == {"a": 2, "b": 1}

        await eventually(counted)


async def test_request_at_zero_makes_its_runtime_wanted_and_is_answered_by_its_first_node():
    registry = MemoryRegistry()
    async with (
        node(registry, "r1", is_router=True) as router,
        aclosing(following(router, pb.RUNTIME)) as runtimes,
    ):
        await set_(router, runtime())
        await router.apply("p")
        await router.reaches("p", "Pending  UpToDate")
        asked = begin(router.ask("p"))
        await until(runtimes, lambda status: status["wanted"] and status["predictors"] == 1)
        assert not asked.done()
        async with node(registry, "n1", is_router=False) as there:
            answer = await asked
            assert answer.model_name in there.runtime.loaded
            await router.reaches("p", "Loaded  UpToDate")
            await until(runtimes, lambda status: status["lastUse"])


async def test_who_follows_predictors_sees_one_pending_and_then_loaded():
    registry = MemoryRegistry()
    async with (
        node(registry, "r1", is_router=True) as router,
        aclosing(following(router, pb.PREDICTOR)) as predictors,
    ):
        await set_(router, runtime())
        await router.apply("p")
        await until(predictors, lambda status: status["activeModelState"] == "Pending")
        async with node(registry, "n1", is_router=False):
            seen = await until(predictors, lambda status: status["activeModelState"] == "Loaded")
        states = dict.fromkeys(status["activeModelState"] for status in seen)
        assert list(states)[-2:] == ["Loading", "Loaded"]
        assert "Failed" not in states


async def test_who_follows_predictors_sees_when_a_runtime_takes_too_long():
    async with (
        node(MemoryRegistry(), "r1", is_router=True) as router,
        aclosing(following(router, pb.PREDICTOR)) as predictors,
    ):
        starting = runtime(state="Starting")
        starting["status"]["since"] = datetime.fromtimestamp(wall_s() - 9.0, UTC).isoformat()
        await set_(router, starting)
        await router.apply("p")
        first, *_, last = await until(predictors, lambda status: not status["available"])
        assert "lastFailureInfo" not in first
        assert last["lastFailureInfo"]["reason"] == "RuntimeUnhealthy"
        assert last["lastFailureInfo"]["message"] == UNHEALTHY
