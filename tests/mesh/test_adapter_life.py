"""Whose models an adapter has: lives of a node, of the adapter and of the model server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from mesh.wire.pb import model_runtime_pb2 as spi
from tests.support.adapters import (
    READY,
    STARTING,
    Parts,
    failure,
    parts_in,
)

Code = grpc.StatusCode
OF_M = {"_fake/m", "_fake/m/a.joblib", "_loaded/m.json"}


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


async def test_status_tells_the_settings(parts: Parts) -> None:
    async with parts.life(
        loadtime_timeout=1234,
        default_modelsize=77,
        runtime_version="1.7.1",
        limit_per_model_concurrency=3,
    ) as client:
        answer = await client.ready()
        assert answer == spi.RuntimeStatusResponse(
            status=READY,
            capacityInBytes=900_000_000,
            maxLoadingConcurrency=4,
            modelLoadingTimeoutMs=1234,
            defaultModelSizeInBytes=77,
            runtimeVersion="1.7.1",
            limitModelConcurrency=True,
            methodInfos={
                name: spi.RuntimeStatusResponse.MethodInfo(idInjectionPath=[1])
                for name in (
                    "inference.GRPCInferenceService/ModelInfer",
                    "inference.GRPCInferenceService/ModelMetadata",
                    "inference.GRPCInferenceService/ModelStreamInfer",
                )
            },
        )
        assert (await client.load("m")).maxConcurrency == 3


async def test_status_carries_the_mark_of_our_adapters(parts: Parts) -> None:
    async with parts.life() as client:
        call = client.spi.runtimeStatus(spi.RuntimeStatusRequest())
        assert ("wml-adapter", "1") in list(await call.initial_metadata())
        assert ("wml-adapter", "1") in list(await call.trailing_metadata())


async def test_loads_are_refused_until_the_server_was_ready(parts: Parts) -> None:
    parts.server.is_up = False
    async with parts.life() as client:
        assert (await client.status()).status == STARTING
        assert (await failure(client.load("m")))[0] is Code.UNAVAILABLE
        parts.server.is_up = True
        assert (await failure(client.load("m")))[0] is Code.UNAVAILABLE  # leftovers may be in it
        assert (await client.status()).status == READY
        await client.load("m")


@pytest.mark.parametrize("node", [None, "node-2"])
async def test_another_life_of_the_node_finds_an_empty_server(
    node: str | None, parts: Parts
) -> None:
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
        await client.ready(node)
        assert parts.server.held == set()
        assert parts.left() == set()


async def test_the_same_life_of_the_node_keeps_its_models(parts: Parts) -> None:
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
        await client.ready()
        assert parts.server.held == {"m"}
        assert parts.left() == OF_M


async def test_another_life_of_the_node_stops_the_loads_of_the_one_before(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life() as client:
        await client.ready()
        call = client.load("m", "p")
        await parts.puller.at_gate.wait()
        await client.ready("node-2")
        assert (await failure(call))[0] is Code.UNAVAILABLE
        assert parts.left() == set()


async def test_adapter_that_comes_back_knows_the_models_of_the_same_node(parts: Parts) -> None:
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
    async with parts.life(modelsize_multiplier=9.0) as client:
        await client.ready()
        size = await client.spi.modelSize(spi.ModelSizeRequest(modelId="m"))
        assert size.sizeInBytes == 125
        assert (await client.load("m")).sizeInBytes == 125
        assert parts.server.loads["m"] == 1
        await client.unload("m")
        assert parts.server.held == set()
        assert parts.left() == set()


@pytest.mark.parametrize("node", [None, "node-2"])
async def test_adapter_that_comes_back_to_another_node_clears_all(
    node: str | None, parts: Parts
) -> None:
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
    async with parts.life() as client:
        await client.ready(node)
        assert parts.server.held == set()
        assert parts.left() == set()


async def test_node_that_does_not_say_who_it_is_never_keeps_anything(parts: Parts) -> None:
    for _ in range(2):
        async with parts.life() as client:
            await client.ready(None)
            assert parts.server.held == set()
            await client.load("m")


async def test_adapter_that_was_killed_clears_what_was_half_done(parts: Parts) -> None:
    """The disk and the server as a kill -9 leaves them, and what others left."""
    parts.root.mkdir()
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
    half = ("_fake/loading", "_fake/laid-out", "_pulling/p", "_pulling/q.pulling-0011")
    for name in half:
        (parts.root / name).mkdir()
    (parts.root / "_loaded/gone.json").write_text('{"size_bytes": 1}')
    (parts.root / "_loaded/damaged.json").write_text('{"size_')
    parts.server.held |= {"loading", "../../unsafe"}
    (parts.root.parent / "unsafe").mkdir()
    async with parts.life() as client:
        await client.ready()
        assert parts.server.held == {"m"}
        assert parts.left() == OF_M | {"_loaded/damaged.json"}
        assert (parts.root.parent / "unsafe").exists()


async def test_server_that_dies_is_forgotten_with_its_models(parts: Parts) -> None:
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
        watch = await client.watch()
        parts.server.die()
        assert (await watch.read()).WhichOneof("event") == "runtime_lost"
        assert (await client.status()).status == STARTING
        assert (await failure(client.load("m")))[0] is Code.UNAVAILABLE
        size = client.spi.modelSize(spi.ModelSizeRequest(modelId="m"))
        assert (await failure(size))[0] is Code.NOT_FOUND
        parts.server.is_up = True
        await client.ready()
        assert parts.left() == set()
        await client.load("m")
        assert parts.server.loads["m"] == 2


async def test_server_that_dies_fails_the_loads_under_way(parts: Parts) -> None:
    gate = parts.server.gates["m"] = asyncio.Event()
    async with parts.life() as client:
        await client.ready()
        watch = await client.watch()
        call = client.load("m")
        await parts.server.at_gate.wait()
        parts.server.die()
        gate.set()
        code, text = await failure(call)
        assert (code, text) == (Code.UNAVAILABLE, "the fake is not ready")
        events = [await watch.read() for _ in range(3)]
        assert events[-1].WhichOneof("event") == "runtime_lost"
        parts.server.is_up = True
        await client.ready()
        assert parts.left() == set()


async def test_server_that_dies_stops_the_pulls_under_way(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life() as client:
        await client.ready()
        call = client.load("m", "p")
        await parts.puller.at_gate.wait()
        parts.server.die()
        assert (await failure(call))[0] is Code.UNAVAILABLE
        assert parts.left() == set()


async def test_stop_undoes_loads_keeps_models_and_removes_the_socket(parts: Parts) -> None:
    parts.puller.gates["p"] = asyncio.Event()
    async with parts.life() as client:
        await client.ready()
        await client.load("m")
        pending = client.load("half", "p")
        await parts.puller.at_gate.wait()
        assert parts.socket.exists()
    assert (await failure(pending))[0] is Code.UNAVAILABLE
    assert parts.server.held == {"m"}
    assert parts.left() == OF_M
    assert not parts.socket.exists()


async def test_start_takes_the_place_of_a_socket_that_a_killed_adapter_left(parts: Parts) -> None:
    parts.socket.touch()
    async with parts.life() as client:
        assert (await client.ready()).status == READY
        assert parts.socket.stat().st_mode & 0o777 == 0o660
