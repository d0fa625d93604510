"""A runtime of others in a mesh of real nodes: its own service, its path of the id, its limit."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml

from mesh.agent.calls import LEAST_QUEUE
from mesh.wire.field_path import read_string, replace_string
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import wml_peer_pb2 as peer_pb
from mesh.wire.pb import wml_peer_pb2_grpc as peer_grpc
from tests.support.mesh_checks import counts
from tests.support.mesh_stand import ASK_S, MakeMesh, MeshStand, eventually
from tests.support.spi_runtime import FOREIGN, FOREIGN_PATH

PREDICT = f"/{FOREIGN}/Predict"
EXPLAIN = f"/{FOREIGN}/Explain"  # nobody lists it
AT_ONCE = 2
CALLS = 12
OTHERS = b"\x1a\x03abc"  # a field of the request that nobody here knows
NAMED_AT = (1, 1)  # where clients name the Predictor; the runtime wants the id elsewhere


@pytest.fixture
def dataplane(tmp_path: Path) -> Path:
    methods = {PREDICT.lstrip("/"): {"idExtractionPath": list(NAMED_AT)}}
    return written(tmp_path, {"rpcConfigs": methods})


def written(folder: Path, dataplane: dict[str, Any]) -> Path:
    path = folder / "dataplane.yaml"
    path.write_text(yaml.safe_dump(dataplane))
    return path


async def predict(public: str, name: str, method: str = PREDICT) -> bytes:
    async with grpc.aio.insecure_channel(public) as channel:
        request = replace_string(OTHERS, NAMED_AT, name)
        return bytes(await channel.unary_unary(method)(request, timeout=ASK_S))


async def test_service_of_its_own_through_any_node_within_its_limit(
    make_mesh: MakeMesh, dataplane: Path
):
    async with make_mesh(
        nodes=2,
        kind="others",
        calls_at_once=AT_ONCE,
        traits="infer=0.2",
        options=("--dataplane", str(dataplane)),
    ) as stand:
        model = await stand.apply("p", "version=p")
        await stand.until_settled("p")
        async with asyncio.TaskGroup() as group:
            calls = [
                group.create_task(predict(stand.publics[number % 2], "p"))
                for number in range(CALLS)
            ]
        for call in calls:
            assert read_string(call.result(), FOREIGN_PATH) == model
            assert read_string(call.result(), NAMED_AT) == "p"
            assert OTHERS in call.result()
        counts = [await node.runtime.read() for node in stand.nodes]
        assert sum(count["infers"].get(model, 0) for count in counts) == CALLS
        assert max(count["peak_in_flight"] for count in counts) == AT_ONCE
        for public in stand.publics:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await predict(public, "p", f"/{FOREIGN}/Train")
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def explain(public: str, method: str, *metadata: tuple[str, str]) -> bytes:
    async with grpc.aio.insecure_channel(public) as channel:
        call = channel.unary_unary(method)(OTHERS, metadata=metadata, timeout=ASK_S)
        return bytes(await call)


async def test_rpcs_that_nobody_lists_go_by_metadata_through_any_node(
    make_mesh: MakeMesh, tmp_path: Path
):
    named = ("mm-vmodel-id", "p")
    file = written(tmp_path, {"allowOtherRpcs": True})
    async with make_mesh(
        nodes=2, kind="others", is_any_allowed=True, options=("--dataplane", str(file))
    ) as stand:
        model = await stand.apply("p", "version=p")
        await stand.until_settled("p")
        for public in stand.publics:  # by a hop through the node that has no copy
            assert await explain(public, EXPLAIN, named) == OTHERS
            for method, metadata, code in (
                (EXPLAIN, (), "INVALID_ARGUMENT"),
                (EXPLAIN, (("mm-vmodel-id", "q"),), "NOT_FOUND"),
                ("/grpc.health.v1.Health/Explain", (named,), "UNIMPLEMENTED"),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await explain(public, method, *metadata)
                assert caught.value.code().name == code
        (holder,) = await stand.holders(model)
        counts = await holder.runtime.read()
        assert counts["infers"][model] == len(stand.publics)


async def test_two_copies_take_all_that_may_wait_for_both_through_one_node(make_mesh: MakeMesh):
    async with make_mesh(nodes=2, calls_at_once=1, traits="infer=0.05") as stand:
        model = await stand.apply("p", "version=p", minCopies=2)
        await stand.until_settled("p")
        await until_on_both(stand, model)
        async with grpc.aio.insecure_channel(stand.publics[0]) as channel:
            infer = kfs_grpc.GRPCInferenceServiceStub(channel).ModelInfer
            async with asyncio.TaskGroup() as group:
                for _ in range(2 * LEAST_QUEUE):
                    group.create_task(answered(infer, model))
        assert (await counts(stand))["infers"] == 2 * LEAST_QUEUE


async def answered(infer: Any, model: str) -> None:
    answer = await infer(kfs.ModelInferRequest(model_name="p"), timeout=ASK_S)
    assert answer.model_name == model


async def until_on_both(stand: MeshStand, model: str) -> None:
    """The nodes are told to load it, since they would see for themselves only after seconds."""
    for node in stand.nodes:
        async with grpc.aio.insecure_channel(node.internal) as channel:
            ask = peer_pb.EnsureLoadedRequest(model=model, purpose="extra")
            await peer_grpc.PeerStub(channel).EnsureLoaded(ask, timeout=ASK_S)

    async def known() -> bool:
        copies = await stand.nodes[0].read("COPY")
        return [copy["status"]["state"] for copy in copies] == ["Loaded", "Loaded"]

    await eventually(known, lambda: f"{model} is on both nodes")
