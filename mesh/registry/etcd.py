"""The store in etcd: what the nodes of a mesh agree through.

Beside the keys of the mesh there is one of its own, the mark: see `etcd_history`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from math import ceil
from typing import Self

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import Revision
from mesh.ops.settings import InvalidSettings
from mesh.registry.etcd_calls import (
    GRANT,
    KEEP_ALIVE,
    RANGE,
    REVOKE,
    TXN,
    Keys,
    comparison,
    first_failed,
    no_change,
    one_key,
    operation,
)
from mesh.registry.etcd_errors import EtcdFailure, Kind
from mesh.registry.etcd_history import MARK, new_mark
from mesh.registry.etcd_link import Link
from mesh.registry.etcd_settings import EtcdSettings
from mesh.registry.etcd_watch import Watch
from mesh.registry.port import (
    Batch,
    Check,
    Compacted,
    Entry,
    LeaseId,
    LeaseLost,
    Op,
    Put,
    Snapshot,
    reject_malformed,
    whole,
)
from mesh.wire.pb import etcd_pb2 as pb

PATIENCE_S = 10.0
CONNECT_PAUSE_S = 0.25
PAGE_KEYS = 1_000
LISTINGS = 3
# A key that nobody puts.
NOBODYS = f"{MARK}-"


class EtcdRegistry:
    """The port `Registry`, in etcd. `connect` makes one that has seen etcd; `close` it."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._keys = Keys(settings.root)
        self._mark = self._keys.encode(MARK)
        self._no_change = no_change(self._keys.encode(NOBODYS))
        self._link = Link(settings)
        self._watch = Watch(self._link, self._keys, self._identify)

    @classmethod
    async def connect(cls, settings: EtcdSettings, *, patience_s: float = PATIENCE_S) -> Self:
        """Raises InvalidSettings where etcd refuses us, Unavailable if away for `patience_s`."""
        registry = cls(settings)
        try:
            await registry._wait_for_etcd(patience_s)
        except BaseException:
            await registry.close()
            raise
        return registry

    @property
    def is_away(self) -> bool:
        return self._link.is_away

    async def list(self, prefix: str) -> Snapshot:
        for _ in range(LISTINGS):
            with suppress(Compacted):
                return await whole(self.pages(prefix))
        raise Unavailable("etcd is compacted faster than it can be listed")

    async def pages(self, prefix: str) -> AsyncGenerator[Snapshot, None]:
        """All at the revision of the first, which comes together with the mark."""
        key, range_end = self._keys.below(prefix)
        asked = pb.RangeRequest(key=key, range_end=range_end, limit=PAGE_KEYS)
        found, store_id = await self._read_with_mark(asked)
        asked.revision = revision = Revision(found.header.revision)
        while True:
            entries = [self._entry(kv) for kv in found.kvs if kv.key != self._mark]
            yield Snapshot(tuple(entries), revision, store_id)
            if not found.more:
                return
            asked.key = found.kvs[-1].key + b"\0"
            found = await self._page(asked)

    async def get(self, key: str) -> Entry | None:
        answer = await self._link.ask(RANGE, pb.RangeRequest(key=self._keys.encode(key)))
        return self._entry(answer.kvs[0]) if answer.kvs else None

    async def commit(self, ops: Sequence[Op], checks: Sequence[Check] = ()) -> Revision:
        reject_malformed(ops, checks)
        if any(op.key == MARK for op in ops):
            raise ValueError(f"the key {MARK} is the store's own")
        request = pb.TxnRequest(
            compare=[comparison(check, self._keys) for check in checks],
            success=[operation(op, self._keys) for op in ops] or [self._no_change],
            failure=[one_key(self._keys.encode(check.key)) for check in checks],
        )
        try:
            answer = await self._link.ask(TXN, request, is_repeatable=not ops)
        except EtcdFailure as error:
            raise _meant(error, ops) from error
        if not answer.succeeded:
            raise Conflict(first_failed(checks, answer.responses))
        return Revision(answer.header.revision)

    async def watch(
        self, prefix: str, after: Revision, store_id: str = ""
    ) -> AsyncGenerator[Batch, None]:
        async for batch in self._watch.run(prefix, after, store_id):
            yield batch

    async def grant(self, ttl_s: float) -> LeaseId:
        """etcd counts whole seconds, and has a least time that follows from its election time."""
        answer = await self._link.ask(GRANT, pb.LeaseGrantRequest(ttl=ceil(ttl_s)))
        return LeaseId(answer.id)

    async def keep_alive(self, lease: LeaseId) -> None:
        answer = await self._link.ask(KEEP_ALIVE, pb.LeaseKeepAliveRequest(id=lease))
        if answer.ttl <= 0:
            raise LeaseLost(lease)

    async def revoke(self, lease: LeaseId) -> None:
        try:
            await self._link.ask(REVOKE, pb.LeaseRevokeRequest(id=lease))
        except EtcdFailure as error:
            if error.kind is not Kind.LEASE_GONE:
                raise

    async def close(self) -> None:
        await self._link.close()

    async def _page(self, asked: pb.RangeRequest) -> pb.RangeResponse:
        try:
            return await self._link.ask(RANGE, asked)
        except EtcdFailure as error:
            if error.kind is Kind.COMPACTED:
                raise Compacted(Revision(asked.revision)) from error
            raise

    async def _identify(self) -> str:
        """Which store this is now."""
        _, store_id = await self._read_with_mark(pb.RangeRequest(key=self._mark))
        return store_id

    async def _read_with_mark(self, wanted: pb.RangeRequest) -> tuple[pb.RangeResponse, str]:
        """What is wanted, and whose it is: the store gets a mark if it has none."""
        request = pb.TxnRequest(
            success=[one_key(self._mark), pb.RequestOp(request_range=wanted)],
            failure=[self._no_change],
        )
        while True:
            answer = await self._link.ask(TXN, request)
            marks, found = (response.response_range for response in answer.responses)
            if marks.kvs:
                found.header.CopyFrom(answer.header)
                return found, self._link.history.store_id(marks.kvs[0].value)
            await self._link.ask(TXN, self._marking())

    def _marking(self) -> pb.TxnRequest:
        """Create-only, so that all who miss it agree on one, and it may be sent twice."""
        put = pb.PutRequest(key=self._mark, value=new_mark())
        absent = pb.Compare(key=self._mark, target=pb.Compare.CREATE, create_revision=0)
        return pb.TxnRequest(compare=[absent], success=[pb.RequestOp(request_put=put)])

    def _entry(self, kv: pb.KeyValue) -> Entry:
        return Entry(self._keys.decode(kv.key), kv.value, Revision(kv.mod_revision))

    async def _wait_for_etcd(self, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + patience_s
        while True:
            try:
                await self._identify()
            except EtcdFailure as error:
                if error.kind in (Kind.REFUSED, Kind.TOKEN):
                    raise InvalidSettings((error.message,)) from error
                if loop.time() >= end_s:
                    raise
                await asyncio.sleep(CONNECT_PAUSE_S)
            else:
                return


def _meant(error: EtcdFailure, ops: Sequence[Op]) -> Exception:
    """What a commit raises for a refusal."""
    match error.kind:
        case Kind.LEASE_GONE:
            # etcd does not say which; a commit of the mesh has only that of its node.
            return LeaseLost(next(op.lease for op in ops if isinstance(op, Put) and op.lease))
        case Kind.TOO_LARGE:
            return ValueError("a commit may not be larger than etcd allows, 1.5 MiB by default")
        case _:
            return error
