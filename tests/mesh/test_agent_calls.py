"""How calls go to a runtime: as it says of its methods, and in turn where it takes few at once."""

import asyncio

import pytest

from mesh.agent.calls import KSERVE_METHODS, Calls, Gate
from mesh.core.errors import DeadlineExceeded, MethodNotServed, Overloaded
from mesh.core.ids import ModelId
from mesh.runtime.port import RuntimeInfo
from mesh.wire.field_path import read_string
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.virtual_time import loop_time_s

M = ModelId("m-1")
INFER, METADATA, STREAM = KSERVE_METHODS
PREDICT = "/tensorflow.serving.PredictionService/Predict"
AS_IT_IS = (("x", "1"),)
WITH_ID = (("x", "1"), ("mm-model-id", M))


def calls(**facts) -> Calls:
    return Calls(RuntimeInfo(1, 1, 1.0, 1, **facts))


def test_runtime_that_says_nothing_serves_kserve_alone():
    told = calls()
    assert told.plain == set(KSERVE_METHODS)
    with pytest.raises(MethodNotServed, match=r"of 'm-1' does not serve tensorflow\.serving\.Pred"):
        told.prepared(PREDICT, b"", AS_IT_IS, M)


def test_list_is_an_allow_list():
    told = calls(methods={"inference.GRPCInferenceService/ModelInfer": (1,)})
    assert told.plain == {INFER}
    with pytest.raises(MethodNotServed):
        told.prepared(STREAM, b"", AS_IT_IS, M)


def test_any_method_goes_with_the_id_in_metadata():
    told = calls(methods={INFER: (1,)}, is_any_method_allowed=True)
    assert told.prepared(PREDICT, b"body", AS_IT_IS, M) == (b"body", WITH_ID)
    assert told.prepared(METADATA, b"body", AS_IT_IS, M) == (b"body", WITH_ID)


def test_id_goes_where_the_runtime_wants_it():
    told = calls(methods={PREDICT: (1, 1), INFER: ()})
    message, metadata = told.prepared(PREDICT, b"", AS_IT_IS, M)
    assert (read_string(message, (1, 1)), metadata) == (M, WITH_ID)
    request = kfs.ModelInferRequest(model_name=M, id="x").SerializeToString()
    assert told.prepared(INFER, request, AS_IT_IS, M) == (request, WITH_ID)


def test_kserves_messages_may_have_the_id_elsewhere_too():
    told = calls(methods={INFER: (3,)})
    request = kfs.ModelInferRequest(model_name=M).SerializeToString()
    message, _ = told.prepared(INFER, request, (), M)
    assert kfs.ModelInferRequest.FromString(message) == kfs.ModelInferRequest(model_name=M, id=M)


def test_metrics_know_the_methods_that_the_runtime_names():
    told = calls(methods={PREDICT: ()}, is_any_method_allowed=True)
    assert [told.label(name) for name in (INFER, PREDICT, "/a.B/C")] == [
        "ModelInfer",
        "Predict",
        "other",
    ]


async def test_gate_lets_so_many_through_in_the_order_of_their_coming():
    gate, inside, order = Gate(2), 0, []
    most = 0

    async def call(number: int) -> None:
        nonlocal inside, most
        await gate.enter(M, None)
        inside += 1
        most = max(most, inside)
        order.append(number)
        await asyncio.sleep(1)
        inside -= 1
        gate.leave()

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(call(number))
    assert (most, order) == (2, list(range(10)))


async def test_full_gate_refuses_and_takes_again_once_there_is_room():
    gate = Gate(1)
    async with asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(gate.enter(M, None))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="the limit is 16"):
            await gate.enter(M, None)
        for _ in range(16):
            gate.leave()
            await asyncio.sleep(0)
    await gate.enter(M, 1.0)


async def test_waiting_ends_with_the_callers_deadline_and_costs_no_place():
    gate = Gate(1)
    await gate.enter(M, None)
    began_s = loop_time_s()
    for _ in range(40):
        with pytest.raises(DeadlineExceeded, match=r"still busy after 0\.5 s"):
            await gate.enter(M, 0.5)
    assert loop_time_s() - began_s == pytest.approx(20)
    gate.leave()
    await gate.enter(M, 0.5)


async def test_caller_that_leaves_the_queue_costs_no_place():
    gate = Gate(1)
    await gate.enter(M, None)
    for _ in range(40):
        task = asyncio.get_running_loop().create_task(gate.enter(M, None))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
    gate.leave()
    await gate.enter(M, 0.5)
