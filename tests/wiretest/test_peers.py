"""Two nodes on loopback that pass calls on to each other, in the clear and with mutual TLS."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from mesh.agent.holdings import Identity
from mesh.agent.remote import MODEL_HEADER
from mesh.core.errors import Unavailable
from mesh.core.ids import ModelId, NodeId, PredictorName, Revision
from mesh.peers.client import GrpcPeers
from mesh.peers.links import Links
from mesh.peers.tls import NODE_NAME, NodeTls
from mesh.registry.memory import MemoryRegistry
from mesh.wire import records
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import wml_management_pb2 as manage_pb
from mesh.wire.pb import wml_management_pb2_grpc as manage_grpc
from mesh.wire.pb import wml_peer_pb2 as peer_pb
from mesh.wire.pb import wml_peer_pb2_grpc as peer_grpc
from router.forward import STREAM_HEADER
from router.guard import NOT_A_NODE
from router.node import Doors, RunningNode, running_node
from tests.support.builders import RUNTIME
from tests.support.certificates import authority, signed
from tests.support.fake_runtime import DataPlane, FakeRuntime, data_plane
from tests.support.world import eventually, mark_whole

WML = Path(sys.executable).parent / "wml-serving"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Pair:
    """Two nodes of one store; `holder` has the model "p", `other` has none."""

    def __init__(self, nodes: list[RunningNode], planes: list[DataPlane]) -> None:
        self.nodes = nodes
        self.planes = planes

    async def applied(self) -> str:
        """Applies "p"; the id of its model, once both nodes route to it."""
        document = {
            "apiVersion": "wmlserving.ai.ibm.com/v1",
            "kind": "Predictor",
            "metadata": {"name": "p"},
            "spec": {
                "modelType": {"name": "sklearn"},
                "path": "a",
                "storage": {"s3": {"secretKey": "k"}},
            },
        }
        await self.nodes[0].management.apply(document)
        await eventually(lambda: all("p" in node.node.routes for node in self.nodes))
        return str(self.nodes[0].node.routes["p"][0].id)

    @property
    def holder(self) -> int:
        return next(number for number, plane in enumerate(self.planes) if plane.runtime.loaded)

    @property
    def other(self) -> RunningNode:
        return self.nodes[1 - self.holder]


@asynccontextmanager
async def pair(tls: NodeTls | None = None) -> AsyncIterator[Pair]:
    registry = MemoryRegistry()
    await mark_whole(registry)
    nodes: list[RunningNode] = []
    planes: list[DataPlane] = []
    async with AsyncExitStack() as stack:
        for name in ("n1", "n2"):
            runtime = FakeRuntime()
            planes.append(await stack.enter_async_context(data_plane(runtime)))
            address = f"127.0.0.1:{free_port()}"
            doors = Doors("127.0.0.1:0", address, "127.0.0.1:0", tls=tls, grace_s=2)
            identity = Identity(NodeId(name), RUNTIME, address=address)
            running = running_node(identity, registry, runtime, doors)
            nodes.append(await stack.enter_async_context(running))
        await eventually(lambda: all(len(node.node.view.nodes) == 2 for node in nodes))
        await eventually(lambda: all(node.node.is_ready for node in nodes))
        yield Pair(nodes, planes)


@asynccontextmanager
async def client(node: RunningNode) -> AsyncIterator[kfs_grpc.GRPCInferenceServiceStub]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        yield kfs_grpc.GRPCInferenceServiceStub(channel)


@pytest.mark.timeout(20)
async def test_call_is_passed_on_with_all_that_is_around_it():
    async with pair() as there:
        model = await there.applied()
        async with client(there.other) as stub:
            call = stub.ModelInfer(
                kfs.ModelInferRequest(model_name="p", id="r1"),
                metadata=(("x-mine", "1"), ("wml-model-bin", b"forged")),
            )
            answer = await call
            assert (answer.model_name, answer.id) == (model, "r1")
            assert dict(await call.initial_metadata())["x-initial"] == "1"
            assert dict(await call.trailing_metadata())["x-trailer"] == "2"
        (seen,) = there.planes[there.holder].metadata
        assert seen["x-mine"] == "1"
        assert not [key for key in seen if key.startswith("wml-")]
        assert there.planes[1 - there.holder].metadata == []


@pytest.mark.timeout(20)
async def test_error_of_the_model_comes_back_as_it_was():
    async with pair() as there:
        await there.applied()
        there.planes[there.holder].errors["bad"] = (grpc.StatusCode.OUT_OF_RANGE, "too far")
        async with client(there.other) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ModelInfer(kfs.ModelInferRequest(model_name="p", id="bad"))
        assert raised.value.code() is grpc.StatusCode.OUT_OF_RANGE
        assert raised.value.details() == "too far"
        assert dict(raised.value.trailing_metadata())["x-trailer"] == "from the model"


@pytest.mark.timeout(20)
async def test_copy_that_is_gone_on_arrival_is_resolved_again():
    async with pair() as there:
        model = await there.applied()
        other = there.other
        there.planes[there.holder].runtime.loaded.clear()  # the runtime lost it, and nobody knows
        async with client(other) as stub:
            answer = await stub.ModelInfer(kfs.ModelInferRequest(model_name="p"), timeout=10)
        assert answer.model_name == model


@pytest.mark.timeout(20)
async def test_stream_goes_through_another_node():
    async with pair() as there:
        model = await there.applied()
        async with client(there.other) as stub:

            async def messages() -> AsyncIterator[kfs.ModelInferRequest]:
                for number in range(3):
                    yield kfs.ModelInferRequest(model_name="p", id=str(number))
                    await asyncio.sleep(0.01)

            channel_call = stub.ModelStreamInfer(messages())
            raw = [message async for message in channel_call]
        assert len(raw) == 3
        assert there.planes[there.holder].streamed == ["0", "1", "2"]
        assert model


@pytest.mark.timeout(20)
async def test_caller_that_leaves_cancels_the_call_on_the_other_node():
    async with pair() as there:
        await there.applied()
        plane = there.planes[there.holder]
        plane.gates["slow"] = asyncio.Event()
        async with client(there.other) as stub:
            call = stub.ModelInfer(kfs.ModelInferRequest(model_name="p", id="slow"))
            await eventually(lambda: plane.metadata)
            call.cancel()
            await eventually(lambda: plane.cancelled == ["slow"])
        held = there.nodes[there.holder].node.routes["p"][0]
        await eventually(lambda: held.in_flight == 0)


@pytest.mark.timeout(40)
async def test_nodes_with_certificates_speak_and_nobody_else_does(tmp_path: Path):
    by = authority(tmp_path / "authority")
    ours = signed(tmp_path / "ours", by, f"DNS:{NODE_NAME}")
    stranger = signed(tmp_path / "stranger", authority(tmp_path / "other"), f"DNS:{NODE_NAME}")
    async with pair(NodeTls(ours)) as there:
        model = await there.applied()
        async with client(there.other) as stub:
            answer = await stub.ModelInfer(kfs.ModelInferRequest(model_name="p"))
        assert answer.model_name == model
        address = there.other.node.identity.address
        assert await says_hello(grpc.aio.insecure_channel(address)) is None
        assert await says_hello(secure(address, stranger)) is None
        assert await says_hello(secure(address, ours)) == there.other.node.identity.id
        listed = await asyncio.to_thread(run_cli, address, ours)
        assert "p " in listed.stdout, listed.stderr
        refused = await asyncio.to_thread(run_cli, address, stranger)
        assert refused.returncode == 1
        assert "Traceback" not in refused.stderr


@pytest.mark.timeout(40)
async def test_certificate_of_the_same_authority_for_another_name_opens_nothing(tmp_path: Path):
    by = authority(tmp_path / "authority")
    ours = signed(tmp_path / "ours", by, f"DNS:{NODE_NAME}")
    others = [
        signed(tmp_path / "other", by, "DNS:somebody-else", "IP:127.0.0.1", common_name=NODE_NAME),
        signed(tmp_path / "nameless", by, common_name=NODE_NAME),
    ]
    async with pair(NodeTls(ours)) as there:
        model = await there.applied()
        address = there.nodes[there.holder].node.identity.address
        assert set(await outcomes(address, ours, model)) == {"OK"}
        for folder in others:
            assert set(await outcomes(address, folder, model)) == {"PERMISSION_DENIED"}
            refused = await asyncio.to_thread(run_cli, address, folder)
            assert refused.returncode == 1
            assert refused.stderr == f"Error from server (Forbidden): {NOT_A_NODE}\n"
        assert there.planes[there.holder].streamed == ["0"]


async def outcomes(address: str, folder: Path, model: str) -> list[str]:
    """Of each kind of call that another node or an administrator makes, with this certificate."""
    message = kfs.ModelInferRequest(model_name=model, id="0").SerializeToString()
    hop = ((MODEL_HEADER, model.encode()),)
    infer = "/inference.GRPCInferenceService/"
    async with secure(address, folder) as channel:
        manage = manage_grpc.ManagementStub(channel)
        passed_on = channel.unary_unary(f"{infer}ModelInfer")(message, metadata=hop, timeout=5)
        stream = channel.stream_stream(f"{infer}ModelStreamInfer")(
            [message], metadata=(*hop, (STREAM_HEADER, "1")), timeout=5
        )
        calls = (
            peer_grpc.PeerStub(channel).Hello(peer_pb.HelloRequest(), timeout=5),
            manage.List(manage_pb.ListRequest(), timeout=5),
            manage.Read(manage_pb.ReadRequest(kind="NODE"), timeout=5),
            passed_on,
            stream,
        )
        return [await outcome(call) for call in calls]


async def outcome(call: Any) -> str:
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            assert [message async for message in call]
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


async def test_node_tells_what_it_knows_of_the_store_to_one_that_had_seen_less():
    async with pair() as there:
        model = await there.applied()
        links = Links(None)
        node, peers = there.nodes[0].node, GrpcPeers(links)
        address, store = node.identity.address, node.follower.store_id
        memory = await peers.recollect(address, store, Revision(0))
        assert memory is not None
        assert memory.revision == node.follower.revision
        found = {key: records.decode(key, value) for key, value in memory.entries.items()}
        assert found["predictors/p"] == node.view.predictors[PredictorName("p")]
        assert found[f"models/{model}"] == node.view.models[ModelId(model)]
        assert [key for key in found if key.startswith("copies/")]
        assert await peers.recollect(address, store, memory.revision) is None
        assert await peers.recollect(address, "another", Revision(0)) is None
        with pytest.raises(Unavailable):
            await peers.recollect(f"127.0.0.1:{free_port()}", store, Revision(0))
        await links.close()


def secure(address: str, folder: Path) -> grpc.aio.Channel:
    """Trusts whom the node has been signed by, so that it is for the node to refuse."""
    authority_of_nodes = (folder.parent / "ours" / "ca.crt").read_bytes()
    key, certificate = (folder / name for name in ("tls.key", "tls.crt"))
    credentials = grpc.ssl_channel_credentials(
        authority_of_nodes, key.read_bytes(), certificate.read_bytes()
    )
    options = (("grpc.ssl_target_name_override", NODE_NAME),)
    return grpc.aio.secure_channel(address, credentials, options=options)


async def says_hello(channel: grpc.aio.Channel) -> str | None:
    async with channel:
        try:
            answer = await peer_grpc.PeerStub(channel).Hello(peer_pb.HelloRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return None
    return str(answer.node)


def run_cli(address: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [WML, "--server", address, "--tls", folder, "get", "predictors"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
