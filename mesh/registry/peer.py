"""The store that another node keeps in memory and serves: the other half of `served`.

A restart of that node is another store: who followed it lists again, and announces again.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, Self

import grpc
import grpc.aio

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.messages import batch_of, commit_message, entry_of, snapshot_of
from mesh.registry.port import (
    Batch,
    Check,
    Compacted,
    Entry,
    LeaseId,
    LeaseLost,
    Op,
    Snapshot,
    reject_malformed,
    whole,
)
from mesh.wire.pb import wml_registry_pb2 as pb
from mesh.wire.pb import wml_registry_pb2_grpc as pb_grpc

PATIENCE_S = 30.0
CONNECT_PAUSE_S = 0.25
CALL_S = 5.0


class Channels(Protocol):
    """Makes channels, one an address, and closes them."""

    def channel(self, address: str) -> grpc.aio.Channel: ...

    async def forget(self, address: str) -> None:
        """Closes the one to this address: the next is a new one, with the certificates of then."""
        ...

    async def close(self) -> None: ...


class PeerRegistry:
    """The port `Registry`; closing it closes `channels`, which are its own."""

    def __init__(self, channels: Channels, address: str) -> None:
        self._channels = channels
        self._address = address
        self.is_away = False
        self._is_closed = False

    @classmethod
    async def connect(
        cls, channels: Channels, address: str, *, patience_s: float = PATIENCE_S
    ) -> Self:
        """Raises Unavailable where that node is away for `patience_s`, or serves no store."""
        registry = cls(channels, address)
        end_s = asyncio.get_running_loop().time() + patience_s
        while True:
            try:
                await registry.get("/")
            except Unavailable:
                if asyncio.get_running_loop().time() >= end_s:
                    await registry.close()
                    raise
            else:
                return registry
            await asyncio.sleep(CONNECT_PAUSE_S)

    async def list(self, prefix: str) -> Snapshot:
        return await whole(self.pages(prefix))

    async def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        parts = []
        async with self._stream("List", pb.ListRequest(prefix=prefix), CALL_S) as call:
            while (part := await self._next(call)) is not None:
                parts.append(part)
        if not parts:
            raise self._away("it listed nothing")
        # Only now: what a reader of pages takes of time is none of the call's.
        for part in parts:
            yield snapshot_of(part)

    async def get(self, key: str) -> Entry | None:
        answer = await self._ask("Get", pb.GetRequest(key=key))
        return entry_of(answer.entry) if answer.HasField("entry") else None

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        reject_malformed(ops, checks)
        answer = await self._ask("Commit", commit_message(ops, checks))
        match answer.WhichOneof("outcome"):
            case "revision":
                return Revision(answer.revision)
            case "conflict":
                raise Conflict(answer.conflict)
            case "lost_lease":
                raise LeaseLost(LeaseId(answer.lost_lease))
        raise self._away("it answered in a way that is not known")

    async def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        request = pb.WatchRequest(prefix=prefix, after=after, store_id=store_id)
        seen = after
        async with self._stream("Watch", request) as call:
            while (event := await self._next(call)) is not None:
                if event.is_compacted:
                    raise Compacted(seen)
                seen = Revision(event.revision)
                yield batch_of(event)
        raise self._away("the watch has ended")

    async def grant(self, ttl_s: float) -> LeaseId:
        answer = await self._ask("Grant", pb.GrantRequest(ttl_s=ttl_s))
        return LeaseId(answer.lease)

    async def keep_alive(self, lease: LeaseId) -> None:
        answer = await self._ask("KeepAlive", pb.KeepAliveRequest(lease=lease))
        if answer.is_lost:
            raise LeaseLost(lease)

    async def revoke(self, lease: LeaseId) -> None:
        await self._ask("Revoke", pb.RevokeRequest(lease=lease))

    async def close(self) -> None:
        self._is_closed = self.is_away = True
        await self._channels.close()

    async def _ask(self, method: str, request: object) -> Any:
        async with self._foreseen() as stub:
            return await getattr(stub, method)(request, timeout=CALL_S)

    @asynccontextmanager
    async def _stream(
        self, method: str, request: object, limit_s: float | None = None
    ) -> AsyncIterator[Any]:
        async with self._foreseen() as stub:
            call = getattr(stub, method)(request, timeout=limit_s)
        try:
            yield call
        finally:
            call.cancel()

    async def _next(self, call: Any) -> Any:
        """The next message, None at the end."""
        async with self._foreseen():
            message = await call.read()
        return message if isinstance(message, pb.ListPart | pb.WatchEvent) else None

    @asynccontextmanager
    async def _foreseen(self) -> AsyncIterator[Any]:
        """The stub of the channel as it is now; what gRPC raises becomes Unavailable."""
        if self._is_closed:
            raise Unavailable("the store is closed")
        channel = self._channels.channel(self._address)
        try:
            yield pb_grpc.RegistryStub(channel)
            self.is_away = False
        except grpc.aio.AioRpcError as error:
            await self._lost(channel)
            raise self._away(error.details() or error.code().name) from error
        except grpc.aio.UsageError as error:  # The channel was closed just before.
            raise self._away("the connection was closed") from error
        except asyncio.CancelledError:
            # gRPC also raises it in a call whose channel is closed, though nobody cancels the task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise self._away("the connection was closed") from None

    async def _lost(self, channel: grpc.aio.Channel) -> None:
        """Another channel for the next call, where this one has no connection any more."""
        is_current = not self._is_closed and self._channels.channel(self._address) is channel
        if is_current and channel.get_state() is not grpc.ChannelConnectivity.READY:
            await self._channels.forget(self._address)

    def _away(self, cause: str) -> Unavailable:
        self.is_away = True
        return Unavailable(f"the store at {self._address} does not answer: {cause}")
