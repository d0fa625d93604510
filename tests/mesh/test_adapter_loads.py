"""Loads and unloads through an adapter's door, over a fake model server and a fake store."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from mesh.storage.port import KeyNotFound
from mesh.wire.pb import model_runtime_pb2 as spi
from tests.support.adapters import (
    AdapterClient,
    Parts,
    eventually,
    failure,
    load_request,
    parts_in,
)

Code = grpc.StatusCode


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


@pytest.fixture
async def client(parts: Parts) -> AsyncIterator[AdapterClient]:
    async with parts.life() as running:
        await running.ready()
        yield running


async def test_load_answers_the_size_on_disk_times_the_multiplier_rounded_up(
    parts: Parts, client: AdapterClient
) -> None:
    parts.puller.files["p"] = {"model.bin": b"x" * 101}
    answer = await client.load("m", "p")
    assert answer.sizeInBytes == 127
    assert answer.maxConcurrency == 0
    assert (await client.spi.modelSize(spi.ModelSizeRequest(modelId="m"))).sizeInBytes == 127


async def test_load_passes_on_every_field_of_the_model_key(
    parts: Parts, client: AdapterClient
) -> None:
    key = {"storage_key": "k", "bucket": "c", "storage_params": {"region": "eu"}}
    parts.puller.files["schema"] = {"s": b"{}"}
    await client.load("m", "some/path", schema_path="s.json", **key)
    (request,) = parts.puller.pulls
    assert (request.storage_key, request.bucket, request.path) == ("k", "c", "some/path")
    assert request.schema_path == "s.json"
    assert request.parameters == {"region": "eu"}


async def test_load_by_two_hundred_at_once_is_one(parts: Parts, client: AdapterClient) -> None:
    parts.server.gates["m"] = asyncio.Event()
    calls = [client.load("m") for _ in range(200)]
    await parts.server.at_gate.wait()
    parts.server.gates["m"].set()
    sizes = {(await call).sizeInBytes for call in calls}
    assert sizes == {125}
    assert parts.server.loads["m"] == len(parts.puller.pulls) == 1


async def test_load_of_a_loaded_model_asks_the_server_and_loads_nothing(
    parts: Parts, client: AdapterClient
) -> None:
    await client.load("m")
    assert (await client.load("m")).sizeInBytes == 125
    assert parts.server.loads["m"] == 1


async def test_load_of_a_model_that_the_server_dropped_loads_it_again(
    parts: Parts, client: AdapterClient
) -> None:
    await client.load("m")
    parts.server.held.clear()
    assert (await client.load("m")).sizeInBytes == 125
    assert parts.server.loads["m"] == 2
    assert parts.server.held == {"m"}


async def test_loads_at_once_are_bounded(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life(loading_concurrency=3) as client:
        await client.ready()
        calls = [client.load(f"m{number}", "p") for number in range(8)]
        await eventually(lambda: _is(parts.puller.under_way == 3))
        parts.puller.gates["p"].set()
        for call in calls:
            await call
    assert parts.puller.peak == 3
    assert parts.server.held == {f"m{number}" for number in range(8)}


async def test_load_cancelled_while_pulling_leaves_nothing(
    parts: Parts, client: AdapterClient
) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    call = client.load("m", "p")
    await parts.puller.at_gate.wait()
    assert parts.left()
    call.cancel()
    await client.unload("m")
    assert parts.left() == set()
    assert parts.server.loads["m"] == 0


async def test_load_cancelled_while_loading_leaves_nothing_once_unload_returns(
    parts: Parts, client: AdapterClient
) -> None:
    gate = parts.server.gates["m"] = asyncio.Event()
    call = client.load("m")
    await parts.server.at_gate.wait()
    call.cancel()
    unload = client.spi.unloadModel(spi.UnloadModelRequest(modelId="m"))
    second = client.spi.unloadModel(spi.UnloadModelRequest(modelId="nobody"))
    await second
    assert not unload.done()  # the server still works on the load: it may not say that it is gone
    gate.set()
    await unload
    assert parts.server.held == set()
    assert parts.left() == set()


async def test_load_whose_last_caller_left_stops_by_itself(
    parts: Parts, client: AdapterClient
) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    calls = [client.load("m", "p") for _ in range(3)]
    await parts.puller.at_gate.wait()
    for call in calls:
        call.cancel()
    await eventually(lambda: _is(parts.puller.under_way == 0 and not parts.left()))


async def test_load_cancelled_in_the_queue_never_begins(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life(loading_concurrency=1) as client:
        await client.ready()
        first = client.load("m1", "p")
        await parts.puller.at_gate.wait()
        queued = client.load("m2", "q")
        await client.spi.predictModelSize(load_predict("m2"))
        queued.cancel()
        await client.unload("m2")
        parts.puller.gates["p"].set()
        await first
        await client.load("m3", "r")
    assert [request.path for request in parts.puller.pulls] == ["p", "r"]


async def test_load_goes_on_for_the_others_when_one_caller_leaves(
    parts: Parts, client: AdapterClient
) -> None:
    gate = parts.server.gates["m"] = asyncio.Event()
    leaver, stayer = client.load("m"), client.load("m")
    await parts.server.at_gate.wait()
    await client.spi.predictModelSize(load_predict("m"))  # the second call is in by now
    leaver.cancel()
    await client.spi.predictModelSize(load_predict("m"))
    gate.set()
    assert (await stayer).sizeInBytes == 125
    assert parts.server.held == {"m"}


async def test_unload_while_loading_stops_the_load(parts: Parts, client: AdapterClient) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    call = client.load("m", "p")
    await parts.puller.at_gate.wait()
    await client.unload("m")
    code, text = await failure(call)
    assert code is Code.ABORTED
    assert "unload" in text
    assert parts.left() == set()


async def test_load_after_a_cancelled_one_waits_for_its_end_and_succeeds(
    parts: Parts, client: AdapterClient
) -> None:
    gate = parts.server.gates["m"] = asyncio.Event()
    first = client.load("m")
    await parts.server.at_gate.wait()
    first.cancel()
    again = client.load("m")
    gate.set()
    assert (await again).sizeInBytes == 125
    assert parts.server.held == {"m"}
    assert parts.left() == {"_fake/m", "_fake/m/a.joblib", "_loaded/m.json"}


async def test_load_that_takes_too_long_is_undone_and_says_what_it_was_at(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life(loadtime_timeout=50) as client:
        await client.ready()
        code, text = await failure(client.load("m", "p"))
        assert code is Code.DEADLINE_EXCEEDED
        assert "0.05 s" in text
        assert "pulling" in text
        assert parts.left() == set()


async def test_load_refused_by_the_store_says_why_and_holds_nothing(
    parts: Parts, client: AdapterClient
) -> None:
    parts.puller.failures["p"] = KeyNotFound("absent")
    code, text = await failure(client.load("m", "p"))
    assert (code, text) == (Code.FAILED_PRECONDITION, "Storage secretKey not found: absent")
    assert parts.left() == set()


async def test_load_refused_by_the_server_is_unloaded_before_it_is_told(
    parts: Parts, client: AdapterClient
) -> None:
    parts.server.broken.add("m")
    code, text = await failure(client.load("m"))
    assert (code, text) == (Code.INTERNAL, "the fake could not load the model: it is broken")
    assert parts.server.unloads["m"] == 1
    assert parts.server.held == set()
    assert parts.left() == set()


async def test_load_of_an_unknown_type_names_it(parts: Parts, client: AdapterClient) -> None:
    code, text = await failure(client.load("m", model_type={"name": "cobol"}))
    assert code is Code.INVALID_ARGUMENT
    assert "'cobol'" in text
    assert parts.left() == set()


async def test_unload_deletes_and_a_second_one_finds_nothing(
    parts: Parts, client: AdapterClient
) -> None:
    await client.load("m")
    await client.load("other")
    await client.unload("m")
    assert parts.server.held == {"other"}
    assert parts.left() == {"_fake/other", "_fake/other/a.joblib", "_loaded/other.json"}
    await client.unload("m")
    assert parts.server.unloads["m"] == 1
    assert await failure(client.spi.modelSize(spi.ModelSizeRequest(modelId="m"))) == (
        Code.NOT_FOUND,
        "model 'm' is not loaded",
    )


async def test_unload_that_the_server_refuses_keeps_the_model(
    parts: Parts, client: AdapterClient
) -> None:
    await client.load("m")
    parts.server.stubborn.add("m")
    request = spi.UnloadModelRequest(modelId="m")
    code, _ = await failure(client.spi.unloadModel(request))
    assert code is Code.INTERNAL
    assert "_fake/m" in parts.left()
    parts.server.stubborn.clear()
    await client.unload("m")
    assert parts.left() == set()


@pytest.mark.parametrize("model", ["..", ".", "a/b", "/etc", "a\\b", "a\nb", "a\0b", "", "x" * 201])
async def test_load_under_an_unsafe_id_is_refused(
    model: str, parts: Parts, client: AdapterClient
) -> None:
    code, text = await failure(client.load(model))
    assert code is Code.INVALID_ARGUMENT
    assert text.startswith("modelId: ")
    assert parts.puller.pulls == []
    await client.unload(model)


async def test_predicted_size_is_the_default_until_the_same_files_were_loaded(
    parts: Parts, client: AdapterClient
) -> None:
    parts.puller.files["p"] = {"model.bin": b"x" * 1000}
    assert await _predicted(client, "m", "p") == 1_000_000
    await client.load("m", "p")
    await client.unload("m")
    assert await _predicted(client, "another-id", "p") == 1250
    assert await _predicted(client, "m", "q") == 1_000_000


def load_predict(model: str, path: str = "x") -> spi.PredictModelSizeRequest:
    same = load_request(model, path)
    return spi.PredictModelSizeRequest(
        modelId=same.modelId,
        modelType=same.modelType,
        modelPath=same.modelPath,
        modelKey=same.modelKey,
    )


async def _predicted(client: AdapterClient, model: str, path: str) -> int:
    answer = await client.spi.predictModelSize(load_predict(model, path))
    return int(answer.sizeInBytes)


async def _is(value: bool) -> bool:
    return value
