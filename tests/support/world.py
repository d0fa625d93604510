"""A whole node on loopback over a fake runtime: the real router, engine and memory store."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from mesh.agent.holdings import Identity
from mesh.core.errors import Conflict
from mesh.core.ids import NodeId
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Absent, Put, Registry
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_mesh_pb2_grpc as model_mesh_grpc
from mesh.wire.pb import wml_management_pb2 as management_pb
from mesh.wire.pb import wml_management_pb2_grpc as management_grpc
from mesh.wire.records import SEEDED
from router.node import Doors, RunningNode, running_node
from tests.support.builders import RUNTIME, document
from tests.support.fake_runtime import DataPlane, FakeRuntime, data_plane

DEADLINE_S = 10.0


@dataclass
class World:
    """What a test holds of it.

    `infer` is a stub on the node's public address; `manage` and `mesh` are on the other one.
    """

    runtime: FakeRuntime
    plane: DataPlane
    running: RunningNode
    channel: grpc.aio.Channel
    infer: kfs_grpc.GRPCInferenceServiceStub
    manage: management_grpc.ManagementStub
    mesh: model_mesh_grpc.ModelMeshStub

    async def apply(self, name: str, path: str = "a", **fields: str) -> Any:
        """Applies a Predictor; the result's name."""
        body = {
            "apiVersion": "wmlserving.ai.ibm.com/v1",
            "kind": "Predictor",
            "metadata": {"name": name},
            "spec": document(path, **fields),
        }
        answer = await self.manage.Apply(management_pb.ApplyRequest(json=json.dumps(body)))
        return management_pb.ApplyResponse.Result.Name(answer.result)

    async def ask(self, name: str, request_id: str = "", **fields: Any) -> kfs.ModelInferResponse:
        request = kfs.ModelInferRequest(model_name=name, id=request_id)
        return await self.infer.ModelInfer(request, timeout=DEADLINE_S, **fields)

    async def status(self, name: str) -> dict[str, Any]:
        answer = await self.manage.Get(management_pb.GetRequest(name=name))
        return json.loads(answer.json)["status"]

    async def row(self, name: str) -> str:
        """ACTIVEMODEL TARGETMODEL TRANSITION, as the table shows them."""
        status = await self.status(name)
        states = (
            status["activeModelState"],
            status["targetModelState"],
            status["transitionStatus"],
        )
        return " ".join(states)

    async def reaches(self, name: str, row: str) -> dict[str, Any]:
        """Waits until the table shows this row."""

        async def there() -> bool:
            return await self.row(name) == row

        await eventually(there, lambda: f"{name} is not {row!r}")
        return await self.status(name)


def begin(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that the test awaits later."""
    return asyncio.get_running_loop().create_task(work)


async def eventually(condition: Callable[[], Any], message: Callable[[], str] = lambda: "") -> None:
    """Waits until a condition, which may be a coroutine function, holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.005)


async def mark_whole(registry: Registry) -> None:
    with suppress(Conflict):
        await registry.commit([Put(SEEDED, b"1")], [Absent(SEEDED)])


@asynccontextmanager
async def world(
    runtime: FakeRuntime | None = None,
    *,
    identity: Identity | None = None,
    registry: Registry | None = None,
    **doors: Any,
) -> AsyncIterator[World]:
    """A node; further ones are of the same mesh where they share `registry` and have addresses.

    The store is said to be whole, so that nobody waits for another node to fill it.
    """
    runtime = runtime or FakeRuntime()
    identity = identity or Identity(NodeId("n1"), RUNTIME)
    addresses = {
        "public": "127.0.0.1:0",
        "management": "127.0.0.1:0",
        "operations": "127.0.0.1:0",
        "rest": "127.0.0.1:0",
        "grace_s": 5.0,
    }
    registry = registry or MemoryRegistry()
    await mark_whole(registry)
    async with (
        data_plane(runtime) as plane,
        running_node(identity, registry, runtime, Doors(**(addresses | doors))) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.management_port}") as internal,
    ):
        yield World(
            runtime,
            plane,
            running,
            channel,
            kfs_grpc.GRPCInferenceServiceStub(channel),
            management_grpc.ManagementStub(internal),
            model_mesh_grpc.ModelMeshStub(internal),
        )
