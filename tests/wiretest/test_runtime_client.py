"""The runtime port over gRPC, against scripted servers: ours, foreign ones, and broken ones."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId, NodeId, StorageKey
from mesh.runtime.client import GrpcRuntime
from mesh.runtime.port import KeyChanged, LoadedModel, Progress, RuntimeInfo
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import wml_adapter_pb2 as events_pb
from tests.support.builders import model_of
from tests.support.runtime_server import RuntimeServer, runtime_server
from tests.support.world import begin, eventually

MODEL = model_of("p", "a/b")
READY = spi.RuntimeStatusResponse(status=spi.RuntimeStatusResponse.READY)
LOST = events_pb.Event(runtime_lost=events_pb.RuntimeLost())
Code = grpc.StatusCode


@asynccontextmanager
async def client(
    server: RuntimeServer, data: str | None = None, silence_s: float = 30.0
) -> AsyncIterator[GrpcRuntime]:
    target = data or server.target
    runtime = GrpcRuntime(server.target, target, NodeId("n1"), silence_s=silence_s)
    try:
        yield runtime
    finally:
        await runtime.close()


async def test_status_says_who_asks_and_reads_what_a_ready_runtime_says():
    answer = spi.RuntimeStatusResponse(
        status=spi.RuntimeStatusResponse.READY,
        capacityInBytes=100,
        maxLoadingConcurrency=2,
        modelLoadingTimeoutMs=1500,
        defaultModelSizeInBytes=10,
        runtimeVersion="v",
        limitModelConcurrency=True,
    )
    answer.methodInfos["/a/B"].idInjectionPath.extend([1, 2])
    async with runtime_server(runtimeStatus=answer) as server, client(server) as runtime:
        assert await runtime.status() == RuntimeInfo(
            100, 2, 1.5, 10, "v", {"/a/B": (1, 2)}, is_concurrency_limited=True
        )
        assert server.metadata["wml-node"] == "n1"
        assert runtime.address == server.target


async def test_status_of_a_runtime_that_starts_is_none():
    starting = spi.RuntimeStatusResponse(status=spi.RuntimeStatusResponse.STARTING)
    async with runtime_server(runtimeStatus=starting) as server, client(server) as runtime:
        assert await runtime.status() is None


async def test_status_is_none_until_our_own_connection_for_data_stands():
    async with runtime_server(runtimeStatus=READY) as server, runtime_server() as data:
        await data.stop()
        async with client(server, data.target) as runtime:
            assert await runtime.status() is None
            async with runtime_server(target=data.target) as data_again:
                async with asyncio.timeout(10):
                    while await runtime.status() is None:
                        pass
                await ended_by(data_again, runtime)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.UNIMPLEMENTED, Code.INTERNAL])
async def test_status_that_fails_is_unavailable_in_the_runtimes_words(code):
    async with runtime_server(runtimeStatus=code) as server, client(server) as runtime:
        with pytest.raises(Unavailable, match="the runtime does not answer: the words of"):
            await runtime.status()


async def test_load_sends_the_model_and_its_source():
    answer = spi.LoadModelResponse(sizeInBytes=7, maxConcurrency=3)
    async with runtime_server(loadModel=answer) as server, client(server) as runtime:
        assert await runtime.load(MODEL, timeout_s=5) == LoadedModel(7, 3)
        sent = server.asked["loadModel"]
        assert (sent.modelId, sent.modelPath) == (MODEL.id, "a/b")
        assert sent.modelType == "sklearn"
        assert json.loads(sent.modelKey)["storage_key"] == "k"


@pytest.mark.parametrize(
    ("answers", "size_bytes"),
    [({}, 0), ({"modelSize": spi.ModelSizeResponse(sizeInBytes=9)}, 9)],
)
async def test_load_that_does_not_say_the_size_asks_for_it_and_measures_that(answers, size_bytes):
    loaded: dict[str, Any] = {"loadModel": spi.LoadModelResponse()}
    async with runtime_server(**loaded | answers) as server, client(server) as runtime:
        found = await runtime.load(MODEL, timeout_s=5)
    assert found.size_bytes == size_bytes
    assert (found.sizing_s is not None) == bool(answers)
    assert 0 <= (found.sizing_s or 0.0) < 5


@pytest.mark.parametrize(
    ("code", "holds_memory"),
    [
        (Code.FAILED_PRECONDITION, False),
        (Code.INVALID_ARGUMENT, False),
        (Code.INTERNAL, True),
        (Code.CANCELLED, True),
        (Code.UNIMPLEMENTED, True),
    ],
)
async def test_load_that_fails_says_why_and_whether_memory_is_held(code, holds_memory):
    async with runtime_server(loadModel=code) as server, client(server) as runtime:
        with pytest.raises(ModelLoadFailed) as caught:
            await runtime.load(MODEL, timeout_s=5)
    assert (caught.value.cause, caught.value.model) == ("the words of loadModel", MODEL.id)
    assert caught.value.holds_memory is holds_memory


async def test_load_whose_size_cannot_be_had_has_failed_and_holds_memory():
    answers = {"loadModel": spi.LoadModelResponse(), "modelSize": Code.INTERNAL}
    async with runtime_server(**answers) as server, client(server) as runtime:
        with pytest.raises(ModelLoadFailed, match="the words of modelSize") as caught:
            await runtime.load(MODEL, timeout_s=5)
    assert caught.value.holds_memory


async def test_load_that_takes_too_long_has_failed_and_may_hold_memory():
    async with runtime_server(loadModel=60.0) as server, client(server) as runtime:
        with pytest.raises(ModelLoadFailed, match="took longer than 0 s") as caught:
            await runtime.load(MODEL, timeout_s=0.1)
    assert caught.value.holds_memory


@pytest.mark.parametrize(
    "ask",
    [
        lambda runtime: runtime.load(MODEL, timeout_s=5),
        lambda runtime: runtime.unload(MODEL.id),
        lambda runtime: runtime.predict_size_bytes(MODEL),
        lambda runtime: runtime.has(MODEL.id),
        lambda runtime: runtime.status(),
    ],
)
async def test_every_call_to_a_runtime_that_is_not_there_is_unavailable(ask):
    async with runtime_server() as server:
        await server.stop()
        async with client(server) as runtime:
            with pytest.raises(Unavailable, match="the runtime does not answer"):
                await ask(runtime)


async def test_unload_names_the_model_and_fails_as_unavailable():
    async with (
        runtime_server(unloadModel=spi.UnloadModelResponse()) as server,
        client(server) as runtime,
    ):
        await runtime.unload(MODEL.id)
        assert server.asked["unloadModel"].modelId == MODEL.id
        server.answers["unloadModel"] = Code.INTERNAL
        with pytest.raises(Unavailable):
            await runtime.unload(MODEL.id)


async def test_size_that_a_runtime_does_not_predict_is_zero():
    answer = spi.PredictModelSizeResponse(sizeInBytes=5)
    async with runtime_server() as server, client(server) as runtime:
        assert await runtime.predict_size_bytes(MODEL) == 0
    async with runtime_server(predictModelSize=answer) as server, client(server) as runtime:
        assert await runtime.predict_size_bytes(MODEL) == 5
        server.answers["predictModelSize"] = Code.INTERNAL
        with pytest.raises(Unavailable):
            await runtime.predict_size_bytes(MODEL)


@pytest.mark.parametrize(
    ("answer", "has"),
    [
        (kfs.ModelReadyResponse(ready=True), True),
        (kfs.ModelReadyResponse(ready=False), False),
        (Code.NOT_FOUND, False),
        (Code.INTERNAL, False),
    ],
)
async def test_model_is_there_where_the_server_says_so(answer, has):
    async with runtime_server(ModelReady=answer) as server, client(server) as runtime:
        assert await runtime.has(MODEL.id) is has


async def test_model_is_not_given_up_where_the_server_does_not_say():
    silent = runtime_server(ModelReady=Code.DEADLINE_EXCEEDED)
    async with silent as server, client(server) as runtime:
        with pytest.raises(Unavailable):
            await runtime.has(MODEL.id)


async def test_events_are_read_until_the_adapter_lost_its_server():
    async with runtime_server(runtimeStatus=READY) as server, client(server) as runtime:
        await runtime.status()
        changed = events_pb.StorageKeyChanged(key="k")
        progress = events_pb.LoadProgress(
            model_id="m", stage="pulling", done_bytes=1, total_bytes=2
        )
        for event in (
            events_pb.Event(storage_key_changed=changed),
            events_pb.Event(),  # of a newer adapter
            events_pb.Event(load_progress=progress),
        ):
            server.events.put_nowait(event)
        events = runtime.events()
        assert await anext(events) == KeyChanged(StorageKey("k"))
        assert await anext(events) == Progress(ModelId("m"), "pulling", 1, 2)
        await eventually(runtime.is_serving)
        server.events.put_nowait(LOST)
        assert [event async for event in events] == []
        assert not runtime.is_serving()
        await runtime.status()
        assert runtime.is_serving()


async def test_events_end_with_an_adapter_that_misses_its_beats_and_what_is_loaded_stays():
    async with runtime_server(runtimeStatus=READY) as server, client(server) as runtime:
        server.beat_s = 0.1
        await runtime.status()
        await runtime.has(MODEL.id)  # both channels are in use
        for _ in range(3):
            server.events.put_nowait(events_pb.Event(alive=events_pb.Alive()))
        async with asyncio.timeout(5):
            assert [event async for event in runtime.events()] == []
        await eventually(runtime.is_serving)


async def test_events_end_with_the_data_channel():
    async with (
        runtime_server(runtimeStatus=READY) as server,
        runtime_server() as data,
        client(server, data.target) as runtime,
    ):
        await ended_by(data, runtime)


async def test_events_end_with_a_server_that_hangs_and_the_next_life_is_another():
    async with (
        runtime_server(runtimeStatus=READY) as server,
        runtime_server(ServerLive=60.0) as data,
        client(server, data.target, silence_s=0.2) as runtime,
    ):
        await runtime.status()
        assert [event async for event in runtime.events()] == []
        assert not runtime.is_serving()
        await runtime.status()
        assert server.metadata["wml-node"] == "n1/1"


@pytest.mark.parametrize("answers", [{}, {"ServerLive": Code.INTERNAL}])
async def test_server_that_answers_whatever_it_is_does_not_hang(answers):
    async with (
        runtime_server(runtimeStatus=READY) as server,
        runtime_server(**answers) as data,
        client(server, data.target, silence_s=0.2) as runtime,
    ):
        await runtime.status()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await anext(runtime.events())


async def test_events_of_a_foreign_runtime_end_with_its_channel():
    async with (
        runtime_server(is_ours=False, runtimeStatus=READY) as server,
        runtime_server() as data,
        client(server, data.target) as runtime,
    ):
        await runtime.status()
        await ended_by(server, runtime)


async def ended_by(server: RuntimeServer, runtime: GrpcRuntime) -> None:
    """That events go on until this server has gone."""
    events = runtime.events()
    ending = begin(anext(events, None))
    await runtime.has(MODEL.id)  # both channels are in use
    assert not ending.done()
    await server.stop()
    async with asyncio.timeout(10):
        assert await ending is None


async def test_foreign_runtime_is_not_taken_to_keep_models():
    async with (
        runtime_server(is_ours=False, runtimeStatus=READY) as server,
        client(server) as runtime,
    ):
        await runtime.status()
        assert not runtime.is_serving()
