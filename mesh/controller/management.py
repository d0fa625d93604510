"""The mesh, as the controller speaks to it: the management service of any node, on 8034."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import grpc
import grpc.aio

from mesh.controller.queue import Refused
from mesh.kube.port import Json
from mesh.peers.links import PEER_OPTIONS
from mesh.peers.tls import NODE_NAME, NodeTls, UnusableTls
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc

CALL_S = 15.0
PREDICTOR, RUNTIME = "PREDICTOR", "RUNTIME"
# What no other try would change: the object itself is refused.
FINAL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS)


class Unfit(Exception):
    """The mesh refuses the object. `is_taken`: the name belongs to somebody else."""

    def __init__(self, problem: str, *, is_taken: bool) -> None:
        super().__init__(problem)
        self.is_taken = is_taken


class Shown(NamedTuple):
    """An object of the mesh by its name; None where it is gone."""

    name: str
    object: Json | None


class Mesh(Protocol):
    """A connection to a mesh. Every call may raise Refused: try again later."""

    async def apply(self, obj: Json, owner: str) -> None:
        """A Predictor. Raises Unfit."""
        ...

    async def delete(self, name: str, owner: str) -> None:
        """Nothing where there is none of this owner."""
        ...

    async def set_runtimes(self, runtimes: Sequence[Json]) -> None:
        """All that there are. Raises Unfit."""
        ...

    async def read(self, kind: str) -> list[Shown]: ...

    def follow(self, kind: str, begun: Callable[[], None] | None = None) -> AsyncIterator[Shown]:
        """First all that there are, then each change.

        From `begun` on no change is missed; what went before that is not told.
        """
        ...


# Connects; raises Refused.
Connected = Callable[[], AbstractAsyncContextManager[Mesh]]


class GrpcMesh:
    """A Mesh over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = pb_grpc.ManagementStub(channel)

    async def apply(self, obj: Json, owner: str) -> None:
        await _answered(self._stub.Apply, pb.ApplyRequest(json=json.dumps(obj), owner=owner))

    async def delete(self, name: str, owner: str) -> None:
        try:
            request = pb.DeleteRequest(name=name, owner=owner)
            await self._stub.Delete(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise _refused(error) from error

    async def set_runtimes(self, runtimes: Sequence[Json]) -> None:
        request = pb.SetRuntimesRequest(json=[json.dumps(runtime) for runtime in runtimes])
        await _answered(self._stub.SetRuntimes, request)

    async def read(self, kind: str) -> list[Shown]:
        call = self._stub.Read(pb.ReadRequest(kind=kind), timeout=CALL_S)
        return [shown async for shown in _events(call)]

    async def follow(
        self, kind: str, begun: Callable[[], None] | None = None
    ) -> AsyncIterator[Shown]:
        call = self._stub.Read(pb.ReadRequest(kind=kind, follow=True))
        # A node of an older version sends this with the first object only.
        await call.initial_metadata()
        if begun is not None:
            begun()
        async for shown in _events(call):
            yield shown


class Connections:
    """`target` is a gRPC target that leads to any node; `tls` None: in the clear."""

    def __init__(self, target: str, tls: NodeTls | None) -> None:
        self._target = target
        self._tls = tls

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Mesh]:
        """A connection of its own, with the certificates of this moment."""
        async with self._channel() as channel:
            yield GrpcMesh(channel)

    def _channel(self) -> grpc.aio.Channel:
        options = (*PEER_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        if self._tls is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        named = (*options, ("grpc.ssl_target_name_override", NODE_NAME))
        try:
            credentials = self._tls.channel_credentials()
        except UnusableTls as error:
            raise Refused(str(error)) from error
        return grpc.aio.secure_channel(self._target, credentials, options=named)


async def _events(call: Any) -> AsyncIterator[Shown]:
    try:
        async for event in call:
            yield Shown(event.name, json.loads(event.json) if event.json else None)
    except grpc.aio.AioRpcError as error:
        raise _refused(error) from error


async def _answered(call: Callable[..., Any], request: Any) -> None:
    try:
        await call(request, timeout=CALL_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in FINAL:
            is_taken = error.code() is grpc.StatusCode.ALREADY_EXISTS
            raise Unfit(error.details() or error.code().name, is_taken=is_taken) from error
        raise _refused(error) from error


def _refused(error: grpc.aio.AioRpcError) -> Refused:
    return Refused(f"the mesh: {error.code().name} {error.details()}")
