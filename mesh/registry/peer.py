"""The store that another node keeps in memory and serves: the other half of `served`.

A restart of that node is another store: who followed it lists again, and announces again.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import grpc
import grpc.aio

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.registry.messages import batch_of, commit_message, entry_of
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
)
from mesh.wire.pb import wml_registry_pb2 as pb
from mesh.wire.pb import wml_registry_pb2_grpc as pb_grpc

PATIENCE_S = 30.0
CONNECT_PAUSE_S = 0.25
CALL_S = 5.0


class PeerRegistry:
    """The port `Registry`, over a channel of one's own to that node: closing it closes the channel.

    `address` is for messages.
    """

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self._channel = channel
        self._address = address
        self.is_away = False
        self._stub: Any = pb_grpc.RegistryStub(channel)

    @classmethod
    async def connect(
        cls, channel: grpc.aio.Channel, address: str, *, patience_s: float = PATIENCE_S
    ) -> Self:
        """Raises Unavailable where that node is away for `patience_s`, or serves no store."""
        registry = cls(channel, address)
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
        entries: list[Entry] = []
        last = None
        async with self._stream("List", pb.ListRequest(prefix=prefix), CALL_S) as call:
            while (part := await self._next(call)) is not None:
                entries += map(entry_of, part.entries)
                last = part
        if last is None:
            raise self._away("it listed nothing")
        return Snapshot(tuple(entries), Revision(last.revision), last.store_id)

    async def get(self, key: str) -> Entry | None:
        with self._foreseen():
            answer = await self._stub.Get(pb.GetRequest(key=key), timeout=CALL_S)
        return entry_of(answer.entry) if answer.HasField("entry") else None

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        reject_malformed(ops, checks)
        with self._foreseen():
            answer = await self._stub.Commit(commit_message(ops, checks), timeout=CALL_S)
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
        with self._foreseen():
            answer = await self._stub.Grant(pb.GrantRequest(ttl_s=ttl_s), timeout=CALL_S)
        return LeaseId(answer.lease)

    async def keep_alive(self, lease: LeaseId) -> None:
        with self._foreseen():
            answer = await self._stub.KeepAlive(pb.KeepAliveRequest(lease=lease), timeout=CALL_S)
        if answer.is_lost:
            raise LeaseLost(lease)

    async def revoke(self, lease: LeaseId) -> None:
        with self._foreseen():
            await self._stub.Revoke(pb.RevokeRequest(lease=lease), timeout=CALL_S)

    async def close(self) -> None:
        self.is_away = True
        await self._channel.close(None)

    @asynccontextmanager
    async def _stream(
        self, method: str, request: object, limit_s: float | None = None
    ) -> AsyncIterator[Any]:
        with self._foreseen():
            call = getattr(self._stub, method)(request, timeout=limit_s)
        try:
            yield call
        finally:
            call.cancel()

    async def _next(self, call: Any) -> Any:
        """The next message, None at the end."""
        with self._foreseen():
            message = await call.read()
        return message if isinstance(message, pb.ListPart | pb.WatchEvent) else None

    @contextmanager
    def _foreseen(self) -> Iterator[None]:
        """What gRPC raises becomes Unavailable."""
        try:
            yield
            self.is_away = False
        except grpc.aio.AioRpcError as error:
            raise self._away(error.details() or error.code().name) from error
        except grpc.aio.UsageError as error:  # The channel was closed just before.
            self.is_away = True
            raise Unavailable("the store is closed") from error
        except asyncio.CancelledError:
            # gRPC also raises it in a call whose channel is closed, though nobody cancels the task.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Unavailable("the store is closed") from None

    def _away(self, cause: str) -> Unavailable:
        self.is_away = True
        return Unavailable(f"the store at {self._address} does not answer: {cause}")
