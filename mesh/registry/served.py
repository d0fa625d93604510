"""The store of this process for other nodes, over gRPC: the other half of `peer`.

It keeps nothing of its own: a lease is kept alive by who has it, and a watch lasts as long as its
call. A consumer that is slow is told that it lags, as the port says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.messages import (
    checks_of,
    entry_message,
    event_message,
    ops_of,
    parts_of,
)
from mesh.registry.port import Compacted, LeaseId, LeaseLost, Registry
from mesh.wire.pb import wml_registry_pb2 as pb
from mesh.wire.pb import wml_registry_pb2_grpc as pb_grpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Answer = TypeVar("Answer")
Method: TypeAlias = Callable[[Any, Any, Context], Awaitable[Answer]]


def _refusing(method: Method[Answer]) -> Method[Answer]:
    """Unavailable and ValueError become the status that `peer` knows them by."""

    @wraps(method)
    async def call(self: Any, request: Any, context: Context) -> Answer:
        try:
            return await method(self, request, context)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    return call


class RegistryService(pb_grpc.RegistryServicer):
    """The calls of wml_registry.proto; whoever made the registry closes it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def register(self, server: grpc.aio.Server) -> None:
        """Adds these calls to a server that is for nodes alone: who reaches it may change all."""
        pb_grpc.add_RegistryServicer_to_server(self, server)

    async def List(  # noqa: N802
        self, request: pb.ListRequest, context: Context
    ) -> AsyncIterator[pb.ListPart]:
        try:
            snapshot = await self._registry.list(request.prefix)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)
        for part in parts_of(snapshot):
            yield part

    @_refusing
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:  # noqa: N802
        entry = await self._registry.get(request.key)
        return pb.GetResponse(entry=None if entry is None else entry_message(entry))

    @_refusing
    async def Commit(self, request: pb.CommitRequest, context: Context) -> pb.CommitResponse:  # noqa: N802
        try:
            revision = await self._registry.commit(ops_of(request), checks_of(request))
        except Conflict as error:
            return pb.CommitResponse(conflict=error.key)
        except LeaseLost as error:
            return pb.CommitResponse(lost_lease=error.lease)
        return pb.CommitResponse(revision=revision)

    async def Watch(  # noqa: N802
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchEvent]:
        after = Revision(request.after)
        watching = self._registry.watch(request.prefix, after, request.store_id)
        try:
            async with aclosing(watching) as batches:
                async for batch in batches:
                    yield event_message(batch)
        except Compacted:
            yield pb.WatchEvent(is_compacted=True)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.message)

    @_refusing
    async def Grant(self, request: pb.GrantRequest, context: Context) -> pb.GrantResponse:  # noqa: N802
        return pb.GrantResponse(lease=await self._registry.grant(request.ttl_s))

    @_refusing
    async def KeepAlive(  # noqa: N802
        self, request: pb.KeepAliveRequest, context: Context
    ) -> pb.KeepAliveResponse:
        try:
            await self._registry.keep_alive(LeaseId(request.lease))
        except LeaseLost:
            return pb.KeepAliveResponse(is_lost=True)
        return pb.KeepAliveResponse()

    @_refusing
    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeResponse:  # noqa: N802
        await self._registry.revoke(LeaseId(request.lease))
        return pb.RevokeResponse()
