"""A node on loopback: what a client sees, over a fake runtime."""

import asyncio

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from mesh.agent.holdings import Identity
from mesh.core.ids import NodeId
from mesh.wire.pb import wml_management_pb2 as pb
from router.waiting import Limits
from tests.support.builders import RUNTIME
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.world import begin, eventually, world


async def test_infer_on_a_cold_model_waits_for_its_load():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        assert await w.apply("p") == "CREATED"
        answer = begin(w.ask("p", "r1"))
        await eventually(lambda: runtime.loads)
        assert not answer.done()
        assert await w.row("p") == "Loading  UpToDate"
        runtime.gates["a"].set()
        reply = await answer
        assert reply.model_name == runtime.loads[0]
        assert reply.id == "r1"
        assert await w.row("p") == "Loaded  UpToDate"


async def test_two_hundred_requests_at_once_cause_one_load():
    runtime = FakeRuntime(gates={"a": asyncio.Event()}, capacity_bytes=MB)
    async with world(runtime) as w:
        await w.apply("p")
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(w.ask("p", str(n))) for n in range(200)]
            await eventually(lambda: runtime.loads)
            runtime.gates["a"].set()
        assert {task.result().id for task in answers} == {str(n) for n in range(200)}
        assert len(runtime.loads) == 1


async def test_traffic_on_three_models_with_room_for_two_loses_nothing():
    runtime = FakeRuntime(capacity_bytes=2 * MB)
    async with world(runtime) as w:
        for name in "xyz":
            await w.apply(name, path=name)

        async def ask_often(name: str) -> None:
            for _ in range(30):
                reply = await w.ask(name)
                assert reply.model_name.startswith(name)

        async with asyncio.TaskGroup() as group:
            for name in "xyzxyz":
                group.create_task(ask_often(name))
        assert runtime.peak_bytes <= 2 * MB
        assert len(runtime.unloads) > 1


async def test_creation_without_room_evicts_nobody_and_loads_on_use():
    runtime = FakeRuntime(capacity_bytes=MB)
    async with world(runtime) as w:
        await w.apply("x")
        await w.reaches("x", "Loaded  UpToDate")
        await w.apply("y", path="b")
        await w.reaches("y", "Standby  UpToDate")
        assert await w.row("x") == "Loaded  UpToDate"
        assert (await w.ask("y")).model_name.startswith("y-")
        assert await w.row("x") == "Standby  UpToDate"


async def test_update_switches_once_and_unloads_the_old_copy():
    runtime = FakeRuntime(gates={"b": asyncio.Event()})
    async with world(runtime) as w:
        await w.apply("p")
        await w.reaches("p", "Loaded  UpToDate")
        old = runtime.loads[0]
        assert await w.apply("p", path="b") == "CONFIGURED"
        await w.reaches("p", "Loaded Loading InProgress")
        assert (await w.ask("p")).model_name == old
        runtime.gates["b"].set()
        await w.reaches("p", "Loaded  UpToDate")
        assert (await w.ask("p")).model_name == runtime.loads[1]
        await eventually(lambda: runtime.unloads == [old])


async def test_update_lets_a_request_in_flight_on_the_old_model_finish():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        gate = w.plane.gates["slow"] = asyncio.Event()
        slow = begin(w.ask("p", "slow"))
        await eventually(lambda: len(w.plane.metadata) == 2)
        await w.apply("p", path="b")
        await w.reaches("p", "Loaded  UpToDate")
        new = (await w.ask("p")).model_name
        assert not w.runtime.unloads
        gate.set()
        assert (await slow).model_name != new
        await eventually(lambda: w.runtime.unloads)


async def test_update_to_a_bad_path_is_blocked_and_recovers():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with world(runtime) as w:
        await w.apply("p")
        await w.ask("p")
        await w.apply("p", path="bad")
        status = await w.reaches("p", "Loaded Failed BlockedByFailedLoad")
        assert status["available"] is True
        assert status["lastFailureInfo"]["message"] == "no such object"
        assert (await w.ask("p")).model_name == runtime.loads[0]
        del runtime.failures["bad"]
        assert await w.apply("p", path="bad") == "UNCHANGED"
        await w.reaches("p", "Loaded  UpToDate")
        assert (await w.ask("p")).model_name == runtime.loads[-1]


async def test_going_back_to_the_old_spec_ends_a_blocked_transition():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with world(runtime) as w:
        await w.apply("p")
        await w.ask("p")
        await w.apply("p", path="bad")
        await w.reaches("p", "Loaded Failed BlockedByFailedLoad")
        await w.apply("p")
        status = await w.reaches("p", "Loaded  UpToDate")
        assert "lastFailureInfo" not in status
        assert len(runtime.loads) == 2


async def test_target_that_does_not_fit_beside_the_active_model_is_blocked():
    runtime = FakeRuntime(capacity_bytes=MB)
    async with world(runtime) as w:
        await w.apply("p")
        await w.ask("p")
        await w.apply("p", path="b")
        status = await w.reaches("p", "Loaded Failed BlockedByFailedLoad")
        assert "beside" in status["lastFailureInfo"]["message"]
        assert (await w.ask("p")).model_name == runtime.loads[0]


async def test_first_creation_that_fails_says_why():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with world(runtime) as w:
        await w.apply("p", path="bad")
        status = await w.reaches("p", "Failed  UpToDate")
        assert status["available"] is False
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask("p")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == "model load failed: no such object"
        info = error_details_pb2.ErrorInfo()
        assert rpc_status.from_call(caught.value).details[0].Unpack(info)
        assert info.reason == "ModelLoadFailed"
        assert info.metadata == {"model": runtime.loads[0], "node": "n1"}


async def test_unsupported_model_type_is_refused_as_the_status_says():
    async with world() as w:
        await w.apply("p", type_name="pytorch")
        status = await w.status("p")
        assert status["lastFailureInfo"]["reason"] == "NoSupportingRuntime"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask("p")
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert caught.value.details() == status["lastFailureInfo"]["message"]


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("nobody", grpc.StatusCode.NOT_FOUND, "predictor 'nobody' not found"),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "model_name: required"),
    ],
)
async def test_bad_names_have_their_codes(name, code, text):
    async with world() as w:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask(name)
        assert (caught.value.code(), caught.value.details()) == (code, text)


async def test_unparsable_and_oversized_messages_have_their_codes():
    async with world() as w:
        send = w.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(b"\x0a\x50abc")
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(b"\x0a\x01p" + bytes([0x3A, 0x80, 0x80, 0xC0, 0x08]) + bytes(17 * 2**20))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_status_and_trailers_pass_through():
    async with world() as w:
        await w.apply("p")
        call = w.ask("p", metadata=(("x-mine", "1"), ("x-bytes-bin", b"\x00\xff")))
        await call
        assert w.plane.metadata[-1]["x-mine"] == "1"
        assert w.plane.metadata[-1]["x-bytes-bin"] == b"\x00\xff"
        w.plane.errors["bad"] = (grpc.StatusCode.DATA_LOSS, "from the model")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask("p", "bad")
        assert caught.value.code() is grpc.StatusCode.DATA_LOSS
        assert caught.value.details() == "from the model"
        assert dict(caught.value.trailing_metadata())["x-trailer"] == "from the model"


async def test_name_in_metadata_serves_a_message_without_one():
    async with world() as w:
        await w.apply("p")
        reply = await w.ask("", metadata=(("mm-vmodel-id", "p"),))
        assert reply.model_name.startswith("p-")
        assert "mm-vmodel-id" not in w.plane.metadata[-1]


async def test_client_that_cancels_is_cancelled_at_the_model():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.plane.gates["slow"] = asyncio.Event()
        slow = begin(w.ask("p", "slow"))
        await eventually(lambda: len(w.plane.metadata) == 2)
        slow.cancel()
        await eventually(lambda: w.plane.cancelled == ["slow"])


async def test_client_that_cancels_in_a_load_changes_nothing_for_another():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime) as w:
        await w.apply("p")
        first = begin(w.ask("p", "1"))
        second = begin(w.ask("p", "2"))
        await eventually(lambda: runtime.loads)
        first.cancel()
        runtime.gates["a"].set()
        assert (await second).id == "2"
        assert len(runtime.loads) == 1


async def test_model_that_the_runtime_lost_is_loaded_again_unseen():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.runtime.loaded.clear()
        assert (await w.ask("p")).model_name.startswith("p-")
        assert len(w.runtime.loads) == 2


async def test_runtime_that_dies_is_waited_for_and_its_models_load_again():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.runtime.die()
        await w.reaches("p", "Standby  UpToDate")
        waiting = begin(w.ask("p"))
        await w.reaches("p", "Loading  UpToDate")
        w.runtime.is_up = True
        assert (await waiting).model_name.startswith("p-")


async def test_deleted_predictor_is_gone_at_once():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        await w.manage.Delete(pb.DeleteRequest(name="p"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask("p")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await eventually(lambda: not w.runtime.loaded)


async def test_too_many_waiting_are_refused():
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    async with world(runtime, waiting=Limits(per_model=2)) as w:
        await w.apply("p")
        asked = [begin(w.ask("p", str(n))) for n in range(3)]
        (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert refused.exception().code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the limit is 2" in refused.exception().details()
        runtime.gates["a"].set()
        for answer in waiting:
            assert (await answer).model_name == runtime.loads[0]


async def test_runtime_that_stays_away_makes_requests_unavailable():
    identity = Identity(NodeId("n1"), RUNTIME, patience_s=0.3)
    async with world(FakeRuntime(is_up=False), identity=identity) as w:
        await w.apply("p")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ask("p")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_adapter_that_dies_leaves_what_is_loaded_serving():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.runtime.lose_adapter()
        await w.apply("q", path="b")
        cold = begin(w.ask("q"))
        await w.reaches("q", "Loading  UpToDate")
        assert (await w.ask("p")).model_name == w.runtime.loads[0]
        assert await w.row("p") == "Loaded  UpToDate"
        w.runtime.is_up = True
        assert (await cold).model_name.startswith("q-")
        assert len(w.runtime.loads) == 2


async def test_runtime_that_dies_while_its_adapter_is_away_is_noticed():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.runtime.lose_adapter()
        w.runtime.is_data_up = False
        w.runtime.loaded.clear()
        await w.reaches("p", "Standby  UpToDate")
        w.runtime.is_up = True
        assert (await w.ask("p")).model_name.startswith("p-")
        assert len(w.runtime.loads) == 2
