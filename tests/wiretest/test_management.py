"""The management side of a node on loopback: what describe, a dry run and a watch tell."""

import asyncio
import json

import grpc
import pytest

from mesh.core.ids import ModelId
from mesh.runtime.port import Progress
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.builders import document
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.world import World, begin, eventually, world


def body(name: str = "p", path: str = "a") -> dict:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": document(path),
    }


async def described(w: World, name: str = "p") -> dict:
    answer = await w.manage.Describe(pb.DescribeRequest(name=name))
    return json.loads(answer.json)


async def progress_of(w: World, name: str = "p") -> str:
    return (await described(w, name))["status"].get("progress", "")


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_describe_at_rest_is_the_object_with_its_one_model_copy_and_history():
    async with world() as w:
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        shown = await described(w)
        got = json.loads((await w.manage.Get(pb.GetRequest(name="p"))).json)
        assert {key: shown[key] for key in got} == got
        assert shown["models"] == [
            {"id": w.runtime.loads[0], "role": "Active", "state": "Loaded", "spec": document()}
        ]
        (copy,) = shown["copies"]
        assert copy.pop("since").endswith("Z")
        assert copy == {
            "model": w.runtime.loads[0],
            "node": "n1",
            "state": "Loaded",
            "sizeBytes": MB,
        }
        assert [entry["type"] for entry in shown["history"]] == ["Created", "Loading", "Loaded"]
        assert {entry["count"] for entry in shown["history"]} == {1}


async def test_describe_of_a_blocked_transition_has_both_models_and_the_failure():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with world(runtime) as w:
        await w.apply("p")
        await w.ask("p")
        await w.apply("p", path="bad")
        await w.reaches("p", "Loaded Failed BlockedByFailedLoad")
        shown = await described(w)
        roles = [(model["role"], model["state"]) for model in shown["models"]]
        assert roles == [("Active", "Loaded"), ("Target", "Failed")]
        assert [model["spec"]["path"] for model in shown["models"]] == ["a", "bad"]
        assert [copy.get("reason") for copy in shown["copies"]] == [None, "no such object"]
        last = shown["history"][-1]
        assert (last["type"], last["message"], last["node"]) == ("Failed", "no such object", "n1")


async def test_progress_is_the_active_models_where_the_target_has_failed():
    runtime = FakeRuntime(failures={"bad": "no such object"}, gates={"a": asyncio.Event()})
    runtime.gates["a"].set()
    async with world(runtime) as w:
        await w.apply("p")
        await w.ask("p")
        await w.apply("p", path="bad")
        await w.reaches("p", "Loaded Failed BlockedByFailedLoad")
        runtime.gates["a"].clear()
        runtime.loaded.clear()
        again = begin(w.ask("p"))
        await eventually_shows(w, "p", "loading")
        runtime.gates["a"].set()
        await again


async def test_describe_of_an_unknown_name_is_not_found():
    async with world() as w:
        error = await refused(w.manage.Describe(pb.DescribeRequest(name="nobody")))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_progress_is_in_describe_and_in_the_watch_and_ends_with_the_load():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        await w.apply("p")
        await eventually(lambda: runtime.loads)
        assert await progress_of(w) == "loading"
        watch = w.manage.Watch(pb.WatchRequest(name="p"))
        assert (await watch.read()).progress == "loading"
        runtime.tell(Progress(runtime.loads[0], "pulling", 3_100_000, 12_000_000))
        event = await watch.read()
        assert event.progress == "pulling 3.1/12 MB"
        assert json.loads(event.json)["status"]["activeModelState"] == "Loading"
        assert await progress_of(w) == "pulling 3.1/12 MB"
        runtime.gates["a"].set()
        while (event := await watch.read()).progress:
            pass
        assert json.loads(event.json)["status"]["activeModelState"] == "Loaded"
        assert await progress_of(w) == ""


async def test_progress_of_an_unknown_model_is_nobodys():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.runtime.tell(Progress(ModelId("other"), "pulling", 1, 2))
        await w.apply("q", path="b")
        await w.ask("q")
        assert await progress_of(w) == ""


async def test_what_waits_says_for_what():
    runtime = FakeRuntime(is_up=False, capacity_bytes=MB, max_loading=1)
    async with world(runtime) as w:
        await w.apply("p")
        first = begin(w.ask("p"))
        await eventually_shows(w, "p", "waiting for the runtime")
        runtime.is_up = True
        await first
        w.plane.gates["slow"] = asyncio.Event()
        slow = begin(w.ask("p", "slow"))
        await eventually(lambda: len(w.plane.metadata) == 2)
        await w.apply("q", path="b")
        second = begin(w.ask("q"))
        await eventually_shows(w, "q", "waiting for room")
        w.plane.gates["slow"].set()
        await slow
        await second


async def test_what_waits_for_a_loading_slot_says_so():
    runtime = FakeRuntime(gates={"a": asyncio.Event()}, max_loading=1)
    async with world(runtime) as w:
        await w.apply("p")
        await eventually(lambda: runtime.loads)
        await w.apply("q", path="b")
        await eventually_shows(w, "q", "waiting for its turn")
        runtime.gates["a"].set()
        await w.reaches("q", "Loaded  UpToDate")


async def eventually_shows(w: World, name: str, progress: str) -> None:
    async def there() -> bool:
        return await progress_of(w, name) == progress

    await eventually(there, lambda: f"{name} does not show {progress!r}")


async def test_watch_of_a_deleted_predictor_has_no_progress():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        await w.apply("p")
        watch = w.manage.Watch(pb.WatchRequest(name="p"))
        assert (await watch.read()).json
        await w.manage.Delete(pb.DeleteRequest(name="p"))
        while (event := await watch.read()).json:
            pass
        assert (event.name, event.progress) == ("p", "")


async def test_dry_run_says_what_would_happen_and_does_nothing():
    async with world() as w:

        async def would(path: str) -> str:
            request = pb.ApplyRequest(json=json.dumps(body(path=path)), dry_run=True)
            answer = await w.manage.Apply(request)
            return pb.ApplyResponse.Result.Name(answer.result)

        assert await would("a") == "CREATED"
        assert not w.running.node.view.predictors
        await w.apply("p")
        assert await would("a") == "UNCHANGED"
        assert await would("b") == "CONFIGURED"
        await w.reaches("p", "Loaded  UpToDate")
        assert len(w.runtime.loads) == 1


async def test_dry_run_checks_as_an_apply_does():
    async with world() as w:
        bad = body() | {"spec": {}}
        request = pb.ApplyRequest(json=json.dumps(bad), dry_run=True)
        error = await refused(w.manage.Apply(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "spec.modelType: required" in error.details()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 200_000, ""),
        ('{"a":' * 200_000, ""),
        ("", "must be one Predictor, not 0 documents"),
        (json.dumps({"kind": "List", "items": [body("a"), body("b")]}), "not 2 documents"),
        ("{} x", ""),
        ("[]", "must be a mapping, not a list"),
        ('{"kind": "Predictor", "kind": "Predictor"}', "field 'kind' is given twice"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_apply_of_what_is_no_predictor_is_invalid(text, problem, dry_run):
    async with world() as w:
        request = pb.ApplyRequest(json=text, dry_run=dry_run)
        error = await refused(w.manage.Apply(request))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert problem in error.details()
        assert not w.running.node.view.predictors


async def test_predictor_belongs_to_who_created_it():
    async with world() as w:

        async def apply(path: str, owner: str, *, dry_run: bool = False) -> str:
            text = json.dumps(body(path=path))
            request = pb.ApplyRequest(json=text, owner=owner, dry_run=dry_run)
            return pb.ApplyResponse.Result.Name((await w.manage.Apply(request)).result)

        assert await apply("a", "me") == "CREATED"
        shown = json.loads((await w.manage.Get(pb.GetRequest(name="p"))).json)
        assert shown["metadata"]["annotations"] == {"wmlserving.ai.ibm.com/owner": "me"}
        for dry_run in (True, False):
            error = await refused(apply("b", "you", dry_run=dry_run))
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            assert error.details() == "predictor 'p' belongs to 'me'"
        assert await apply("b", "") == "CONFIGURED"
        error = await refused(w.manage.Delete(pb.DeleteRequest(name="p", owner="you")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert list(w.running.node.view.predictors) == ["p"]
        await w.manage.Delete(pb.DeleteRequest(name="p", owner="me"))
        assert not w.running.node.view.predictors
