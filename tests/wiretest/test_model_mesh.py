"""`mmesh.ModelMesh` of a real node on loopback, as the peers' controllers call it."""

import asyncio
import json

import grpc
import pytest

from mesh.core.records import BackingModel
from mesh.wire import records
from mesh.wire.pb import model_mesh_pb2 as pb
from mesh.wire.pb import wml_management_pb2 as management_pb
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.world import World, begin, eventually, world

Status = pb.ModelStatusInfo
VStatus = pb.VModelStatusInfo
KEY = json.dumps({"storage_key": "k", "model_type": "sklearn", "extra": 5})


def info(path: str = "a", key: str = KEY, type: str = "mt:sklearn:0") -> pb.ModelInfo:  # noqa: A002
    return pb.ModelInfo(type=type, path=path, key=key)


async def register(w: World, model: str = "m", path: str = "a", **fields) -> pb.ModelStatusInfo:
    request = pb.RegisterModelRequest(modelId=model, modelInfo=info(path), **fields)
    return await w.mesh.registerModel(request)


async def set_vmodel(w: World, target: str, path: str = "", **fields) -> pb.VModelStatusInfo:
    """Points `v` at a model, which is created where a path is given."""
    if path:
        fields["modelInfo"] = info(path)
    request = pb.SetVModelRequest(vModelId="v", targetModelId=target, **fields)
    return await w.mesh.setVModel(request)


async def status(w: World, model: str = "m") -> str:
    answer = await w.mesh.getModelStatus(pb.GetStatusRequest(modelId=model))
    return Status.ModelStatus.Name(answer.status)


async def vstatus(w: World, owner: str = "", name: str = "v") -> pb.VModelStatusInfo:
    return await w.mesh.getVModelStatus(pb.GetVModelStatusRequest(vModelId=name, owner=owner))


async def becomes(w: World, state: str, model: str = "m") -> None:
    async def there() -> bool:
        return await status(w, model) == state

    await eventually(there, lambda: f"{model} is not {state}")


def stored(w: World) -> dict[str, BackingModel]:
    return dict(w.running.node.view.models)


def shown(answer: pb.VModelStatusInfo) -> tuple[str, str, str]:
    return VStatus.VModelStatus.Name(answer.status), answer.activeModelId, answer.targetModelId


async def refused(call, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is code
    return caught.value.details()


# models


async def test_registered_model_is_there_and_is_not_loaded():
    async with world() as w:
        assert await status(w) == "NOT_FOUND"
        assert (await register(w)).status == Status.NOT_LOADED
        assert await status(w) == "NOT_LOADED"
        model = stored(w)["m"]
        assert (model.predictor, model.auto_delete) == ("", False)
        assert (model.source.key, model.source.storage_key) == (KEY, "k")
        assert w.runtime.loads == []


async def test_same_id_with_the_same_info_is_no_error_and_with_other_info_is_one():
    async with world() as w:
        await register(w)
        before = stored(w)
        await register(w)
        assert stored(w) == before
        for other in (info("b"), info(key="{}"), info(type="onnx")):
            request = pb.RegisterModelRequest(modelId="m", modelInfo=other)
            text = await refused(w.mesh.registerModel(request), grpc.StatusCode.ALREADY_EXISTS)
            assert text == "model 'm' exists with another type, path or key"
        assert stored(w) == before


@pytest.mark.parametrize(
    ("call", "request_", "text"),
    [
        (
            "registerModel",
            pb.RegisterModelRequest(modelInfo=pb.ModelInfo(type="t")),
            "modelId: required",
        ),
        ("registerModel", pb.RegisterModelRequest(modelId="m"), "modelInfo.type: required"),
        ("unregisterModel", pb.UnregisterModelRequest(), "modelId: required"),
        ("getModelStatus", pb.GetStatusRequest(), "modelId: required"),
        ("ensureLoaded", pb.EnsureLoadedRequest(), "modelId: required"),
        ("setVModel", pb.SetVModelRequest(targetModelId="m"), "vModelId: required"),
        ("setVModel", pb.SetVModelRequest(vModelId="v"), "targetModelId: required"),
        (
            "setVModel",
            pb.SetVModelRequest(vModelId="v", targetModelId="m", modelInfo=pb.ModelInfo()),
            "modelInfo.type: required",
        ),
        ("deleteVModel", pb.DeleteVModelRequest(), "vModelId: required"),
        ("getVModelStatus", pb.GetVModelStatusRequest(), "vModelId: required"),
    ],
)
async def test_request_without_what_it_needs_is_invalid(call, request_, text):
    async with world() as w:
        call = getattr(w.mesh, call)
        assert await refused(call(request_), grpc.StatusCode.INVALID_ARGUMENT) == text
        assert not stored(w)
        assert not w.running.node.view.predictors


async def test_register_with_load_now_loads_and_with_sync_waits_for_it():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        answer = await register(w, loadNow=True)
        assert answer.status in (Status.NOT_LOADED, Status.LOADING)
        await becomes(w, "LOADING")
        second = begin(register(w, "m2", "b", loadNow=True, sync=True))
        assert (await second).status == Status.LOADED
        waiting = begin(register(w, loadNow=True, sync=True))
        await eventually(lambda: runtime.loads.count("m") == 1)
        runtime.gates["a"].set()
        answer = await waiting
        assert answer.status == Status.LOADED
        (copy,) = answer.modelCopyInfos
        assert (copy.location, copy.copyStatus) == ("n1", Status.LOADED)
        assert copy.time > 1_600_000_000_000
        assert runtime.loads.count("m") == 1


async def test_load_goes_on_when_its_caller_has_left():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        request = pb.RegisterModelRequest(modelId="m", modelInfo=info(), loadNow=True, sync=True)
        call = w.mesh.registerModel(request)
        await eventually(lambda: runtime.loads)
        call.cancel()
        runtime.gates["a"].set()
        await becomes(w, "LOADED")
        assert runtime.loads == ["m"]


async def test_failed_load_says_why():
    runtime = FakeRuntime(failures={"a": "no such object"})
    async with world(runtime) as w:
        answer = await register(w, loadNow=True, sync=True)
        assert answer.status == Status.LOADING_FAILED
        assert answer.errors == ["no such object"]
        assert [copy.copyStatus for copy in answer.modelCopyInfos] == [Status.LOADING_FAILED]


async def test_model_that_no_runtime_takes_has_failed_and_says_so():
    async with world() as w:
        request = pb.RegisterModelRequest(
            modelId="m", modelInfo=info(key="", type="onnx"), loadNow=True, sync=True
        )
        answer = await w.mesh.registerModel(request)
        assert answer.status == Status.LOADING_FAILED
        assert answer.errors == ["No ServingRuntime supports specified model type and/or protocol"]


async def test_ensure_loaded_loads_what_is_registered_and_knows_nothing_else():
    async with world() as w:
        request = pb.EnsureLoadedRequest(modelId="m", sync=True)
        text = await refused(w.mesh.ensureLoaded(request), grpc.StatusCode.NOT_FOUND)
        assert text == "model 'm' not found"
        await register(w)
        assert (await w.mesh.ensureLoaded(request)).status == Status.LOADED
        assert (await w.mesh.ensureLoaded(request)).status == Status.LOADED
        assert w.runtime.loads == ["m"]


@pytest.mark.parametrize(("used", "expected"), [(1, "NOT_LOADED"), (0, "LOADED")])
async def test_model_that_was_used_long_ago_takes_nobodys_room(used, expected):
    async with world(FakeRuntime(capacity_bytes=MB)) as w:
        await w.apply("p", path="b")
        await w.ask("p")
        own = w.running.node.view.nodes

        def is_known() -> bool:
            return all(node.oldest_use_s for node in own.values())

        await eventually(is_known)
        answer = await register(w, loadNow=True, sync=True, lastUsedTime=used)
        assert Status.ModelStatus.Name(answer.status) == expected


async def test_unregister_takes_what_nobody_refers_to_and_no_error_for_nothing():
    async with world() as w:
        request = pb.UnregisterModelRequest(modelId="m")
        await w.mesh.unregisterModel(request)
        await register(w, loadNow=True, sync=True)
        await set_vmodel(w, "m")
        text = await refused(w.mesh.unregisterModel(request), grpc.StatusCode.FAILED_PRECONDITION)
        assert text == "model 'm' is in use by predictor 'v'"
        await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId="v"))
        assert await status(w) == "LOADED"
        await w.mesh.unregisterModel(request)
        assert await status(w) == "NOT_FOUND"
        await eventually(lambda: w.runtime.unloads == ["m"])


# vmodels


async def test_unknown_vmodel_is_not_found_in_the_body():
    async with world() as w:
        answer = await vstatus(w)
        assert shown(answer) == ("NOT_FOUND", "", "")
        assert answer.activeModelStatus.status == Status.NOT_FOUND
        await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId="v"))


async def test_new_vmodel_is_at_rest_and_serves_its_model_under_its_name():
    async with world() as w:
        answer = await set_vmodel(w, "m", "a", loadNow=True, sync=True)
        assert shown(answer) == ("DEFINED", "m", "m")
        assert answer.activeModelStatus.status == Status.LOADED
        assert not answer.HasField("targetModelStatus")
        assert (await w.ask("v")).model_name == "m"
        assert shown(await vstatus(w)) == ("DEFINED", "m", "m")
        assert (await w.status("v"))["activeModelState"] == "Loaded"


async def test_target_without_info_must_be_there():
    async with world() as w:
        text = await refused(set_vmodel(w, "m"), grpc.StatusCode.NOT_FOUND)
        assert text == "model 'm' not found"
        await register(w)
        assert shown(await set_vmodel(w, "m")) == ("DEFINED", "m", "m")
        text = await refused(set_vmodel(w, "m", "b"), grpc.StatusCode.ALREADY_EXISTS)
        assert text == "model 'm' exists with another type, path or key"


async def test_update_needs_a_vmodel_that_exists():
    async with world() as w:
        await register(w)
        text = await refused(set_vmodel(w, "m", updateOnly=True), grpc.StatusCode.NOT_FOUND)
        assert text == "predictor 'v' not found"
        await set_vmodel(w, "m")
        assert shown(await set_vmodel(w, "m", updateOnly=True)) == ("DEFINED", "m", "m")


async def test_served_vmodel_keeps_its_model_until_the_target_is_loaded():
    runtime = FakeRuntime(gates={"b": asyncio.Event()})
    async with world(runtime) as w:
        await set_vmodel(w, "m1", "a", loadNow=True, sync=True, autoDeleteTargetModel=True)
        await w.ask("v")
        answer = await set_vmodel(w, "m2", "b")
        assert shown(answer) == ("TRANSITIONING", "m1", "m2")
        assert answer.activeModelStatus.status == Status.LOADED
        assert answer.HasField("targetModelStatus")
        waiting = begin(set_vmodel(w, "m2", "b", sync=True))
        await eventually(lambda: runtime.loads == ["m1", "m2"])
        assert (await w.ask("v")).model_name == "m1"
        assert not waiting.done()
        runtime.gates["b"].set()
        answer = await waiting
        assert shown(answer) == ("DEFINED", "m2", "m2")
        assert answer.activeModelStatus.status == Status.LOADED
        assert (await w.ask("v")).model_name == "m2"
        assert set(stored(w)) == {"m2"}  # the first was to go, the second is not
        await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId="v"))
        assert set(stored(w)) == {"m2"}


async def test_failed_transition_says_so_and_the_old_model_serves_on():
    runtime = FakeRuntime(failures={"b": "no such object"})
    async with world(runtime) as w:
        await set_vmodel(w, "m1", "a", loadNow=True, sync=True)
        answer = await set_vmodel(w, "m2", "b", sync=True)
        assert shown(answer) == ("TRANSITION_FAILED", "m1", "m2")
        assert answer.targetModelStatus.status == Status.LOADING_FAILED
        assert answer.targetModelStatus.errors == ["no such object"]
        assert (await w.ask("v")).model_name == "m1"
        runtime.failures.clear()
        await set_vmodel(w, "m2")

        async def has_moved() -> bool:
            return shown(await vstatus(w)) == ("DEFINED", "m2", "m2")

        await eventually(has_moved)


async def test_force_switches_also_to_a_model_that_fails():
    async with world(FakeRuntime(failures={"b": "no such object"})) as w:
        await set_vmodel(w, "m1", "a", loadNow=True, sync=True)
        assert shown(await set_vmodel(w, "m2", "b", force=True)) == ("DEFINED", "m2", "m2")
        await becomes(w, "LOADING_FAILED", "m2")
        text = await refused(w.ask("v"), grpc.StatusCode.FAILED_PRECONDITION)
        assert text == "model load failed: no such object"
        answer = await set_vmodel(w, "m1", force=True, loadNow=True, sync=True)
        assert shown(answer) == ("DEFINED", "m1", "m1")
        assert (await w.ask("v")).model_name == "m1"


@pytest.mark.parametrize(("load_now", "moves"), [(False, False), (True, True)])
async def test_idle_vmodel_switches_at_once_unless_its_target_is_to_be_loaded(load_now, moves):
    runtime = FakeRuntime(gates={"b": asyncio.Event()})
    async with world(runtime) as w:
        await set_vmodel(w, "m1", "a", loadNow=True, sync=True)
        await eventually(lambda: w.running.node.view.predictors["v"].served)
        runtime.loaded.clear()
        await w.running.node.recheck("m1")  # it is gone from the runtime
        await becomes(w, "NOT_LOADED", "m1")
        answer = await set_vmodel(w, "m2", "b", loadNow=load_now)
        expected = ("TRANSITIONING", "m1", "m2") if moves else ("DEFINED", "m2", "m2")
        assert shown(answer) == expected
        runtime.gates["b"].set()


async def test_owner_once_set_must_match():
    async with world() as w:
        await register(w)
        assert (await set_vmodel(w, "m", owner="me")).owner == "me"
        answer = await set_vmodel(w, "m2", "b", force=True)
        assert shown(answer) == ("DEFINED", "m2", "m2")
        text = await refused(set_vmodel(w, "m", owner="you"), grpc.StatusCode.ALREADY_EXISTS)
        assert text == "predictor 'v' belongs to 'me'"
        assert shown(await vstatus(w, "you")) == ("NOT_FOUND", "", "")
        assert (await vstatus(w, "me")).owner == "me"
        await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId="v", owner="you"))
        assert (await vstatus(w)).status == VStatus.DEFINED
        await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId="v", owner="me"))
        assert (await vstatus(w)).status == VStatus.NOT_FOUND


async def test_expected_target_makes_it_compare_and_set():
    async with world() as w:
        for model in ("m1", "m2", "m3"):
            await register(w, model)
        await refused(
            set_vmodel(w, "m1", expectedTargetModelId="m2"), grpc.StatusCode.FAILED_PRECONDITION
        )
        await set_vmodel(w, "m1", expectedTargetModelId="m1")
        await set_vmodel(w, "m2", expectedTargetModelId="m1")
        text = await refused(
            set_vmodel(w, "m3", expectedTargetModelId="m1"), grpc.StatusCode.FAILED_PRECONDITION
        )
        assert text == "the target of predictor 'v' is 'm2', not 'm1'"

        async def take(target: str) -> bool:
            try:
                await set_vmodel(w, target, expectedTargetModelId="m2", force=True)
            except grpc.aio.AioRpcError as error:
                return error.code() is not grpc.StatusCode.FAILED_PRECONDITION
            return True

        takes = [begin(take(target)) for target in ("m1", "m3") * 5]
        targets = {target for target, won in zip(("m1", "m3") * 5, takes, strict=True) if await won}
        assert len(targets) == 1
        assert (await vstatus(w)).targetModelId in targets


async def test_model_of_several_vmodels_goes_with_the_last_of_them():
    async with world() as w:
        names = [f"v{number}" for number in range(6)]

        async def point(name: str) -> None:
            request = pb.SetVModelRequest(
                vModelId=name, targetModelId="m", modelInfo=info(), autoDeleteTargetModel=True
            )
            await w.mesh.setVModel(request)

        async def drop(name: str) -> None:
            await w.mesh.deleteVModel(pb.DeleteVModelRequest(vModelId=name))

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(point(name))
        view = w.running.node.view
        assert view.names(stored(w)["m"].id) == set(names)
        async with asyncio.TaskGroup() as group:
            for name in names[1:]:
                group.create_task(drop(name))
        assert (stored(w)["m"].predictor, stored(w)["m"].also) == ("v0", ())
        await set_vmodel(w, "m2", "b")
        await drop("v0")
        assert set(stored(w)) == {"m2"}


async def test_predictor_and_vmodel_are_one_name_and_either_may_change_it():
    async with world() as w:
        await w.apply("v", path="b")
        await w.reaches("v", "Loaded  UpToDate")
        (made,) = stored(w)
        assert shown(await vstatus(w)) == ("DEFINED", made, made)
        answer = await set_vmodel(w, "m", "a", sync=True)
        assert shown(answer) == ("DEFINED", "m", "m")
        got = json.loads((await w.manage.Get(management_pb.GetRequest(name="v"))).json)
        assert got["spec"] == {
            "modelType": {"name": "sklearn", "version": "0"},
            "path": "a",
            "storage": {"s3": {"secretKey": "k"}},
        }
        assert await w.apply("v", path="c") == "CONFIGURED"
        await w.reaches("v", "Loaded  UpToDate")
        assert set(stored(w)) == {"m", (await vstatus(w)).activeModelId}


async def test_apply_does_not_take_the_id_of_another_model():
    async with world() as w:
        await w.apply("p", path="a")
        (made,) = stored(w)
        await w.manage.Delete(management_pb.DeleteRequest(name="p"))
        await register(w, made, "other")
        text = await refused(w.apply("p", path="a"), grpc.StatusCode.ALREADY_EXISTS)
        assert text == f"model {made!r} exists with another type, path or key"


async def test_layout_in_the_store_is_read_back_as_it_is():
    async with world() as w:
        await set_vmodel(w, "m", "a", owner="me")
        model, predictor = stored(w)["m"], w.running.node.view.predictors["v"]
        assert records.decode(records.model_key(model.id), records.encode(model)) == model
        key = records.predictor_key(predictor.name)
        assert records.decode(key, records.encode(predictor)) == predictor
