"""Passes a call on to an upstream and its answer back, as bytes; retries and reads nothing.

Deadline and cancellation go with the call: a caller that leaves cancels it upstream.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import grpc.aio

from mesh.agent.calls import KSERVE_METHODS, Metadata
from mesh.ops.clock import monotonic_s
from mesh.ops.metrics import Metrics
from mesh.peers.links import Links
from mesh.runtime.client import CHANNEL_OPTIONS
from router.port import Upstream
from router.unary import Reply, UnaryCall, unary_call

StreamCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"

CONNECT_S = 1.0
# Each hop sets these for itself, or they are meant for us alone.
NOT_FORWARDED = frozenset({"user-agent", "content-type", "te"})
NOT_FORWARDED_PREFIXES = ("grpc-", "mm-", "wml-")
STREAM_HEADER = "wml-stream"


class NotSent(Exception):
    """The upstream could not be reached, so that it has certainly not begun the call."""


@dataclass(slots=True)
class _Link:
    channel: grpc.aio.Channel
    is_shared: bool = False
    calls: dict[str, UnaryCall] = field(default_factory=dict)


class Forwarder:
    """One channel an upstream address; those to other nodes are of `peers`."""

    def __init__(self, peers: Links, metrics: Metrics) -> None:
        self._peers = peers
        self._ended = metrics.invoked.ended
        self._links: dict[str, _Link] = {}

    async def unary(
        self,
        upstream: Upstream,
        method: str,
        message: bytes,
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Reply:
        """The upstream's answer. Raises AioRpcError as it came, NotSent, or MeshError."""
        if not upstream.hop:
            if method not in upstream.calls.plain:
                message, metadata = upstream.calls.prepared(method, message, metadata, upstream.id)
            if upstream.gate is not None:
                async with upstream.gate.turn(upstream.id, timeout_s) as left_s:
                    return await self._sent(upstream, method, message, metadata, left_s)
        return await self._sent(upstream, method, message, metadata, timeout_s)

    async def _sent(
        self,
        upstream: Upstream,
        method: str,
        message: bytes,
        metadata: Metadata,
        timeout_s: float | None,
    ) -> Reply:
        link = self._link(upstream)
        if link.channel.get_state() is not grpc.ChannelConnectivity.READY:
            await self._connect(link, upstream)
        unary = link.calls.get(method) or self._method(link, method)
        if upstream.hop:
            metadata = (*metadata, *upstream.hop)
        began_s = monotonic_s()
        code = "CANCELLED"
        try:
            reply = await unary(message, metadata, timeout_s)
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        finally:
            if not upstream.hop:  # a peer counts its own
                took_s = monotonic_s() - began_s
                self._ended(upstream.calls.label(method), code, took_s)
                upstream.took(took_s * 1000.0)
        return reply

    @asynccontextmanager
    async def stream(
        self, upstream: Upstream, method: str, metadata: Metadata, timeout_s: float | None
    ) -> AsyncIterator[StreamCall]:
        """A stream to the upstream that has been opened and not written to.

        It counts as one call to the runtime for as long as the context lasts. Raises NotSent, or
        MeshError.
        """
        if upstream.hop:
            yield await self._opened(upstream, method, metadata, timeout_s)
            return
        if method not in upstream.calls.plain:
            _, metadata = upstream.calls.prepared(method, b"", metadata, upstream.id)
        gate = upstream.gate
        turn = nullcontext(timeout_s) if gate is None else gate.turn(upstream.id, timeout_s)
        async with turn as left_s:
            yield await self._opened(upstream, method, metadata, left_s)

    async def _opened(
        self, upstream: Upstream, method: str, metadata: Metadata, timeout_s: float | None
    ) -> StreamCall:
        link = self._link(upstream)
        if link.channel.get_state() is not grpc.ChannelConnectivity.READY:
            await self._connect(link, upstream)
        opened = link.channel.stream_stream(method, None, None)
        if upstream.hop:
            metadata = (*metadata, *upstream.hop, (STREAM_HEADER, "1"))
        return opened(None, timeout=timeout_s, metadata=metadata or None)

    async def close(self) -> None:
        for link in self._links.values():
            if not link.is_shared:
                await link.channel.close(None)
        self._links.clear()

    def _link(self, upstream: Upstream) -> _Link:
        link = self._links.get(upstream.address)
        if link is None or (
            link.is_shared and link.channel is not self._peers.channel(upstream.address)
        ):
            link = self._links[upstream.address] = self._open(upstream)
        return link

    def _open(self, upstream: Upstream) -> _Link:
        if upstream.hop:
            return _Link(self._peers.channel(upstream.address), is_shared=True)
        return _Link(grpc.aio.insecure_channel(upstream.address, options=CHANNEL_OPTIONS))

    async def _connect(self, link: _Link, upstream: Upstream) -> None:
        """Only a connection that stands is sent on: what fails afterwards counts as executed."""
        if link.is_shared:
            if not await self._peers.connect(upstream.address):
                raise NotSent
            return
        try:
            async with asyncio.timeout(CONNECT_S):
                await link.channel.channel_ready()
        except TimeoutError:
            raise NotSent from None

    def _method(self, link: _Link, method: str) -> UnaryCall:
        """Kept for KServe's alone: where any method is allowed, clients make up names."""
        unary = unary_call(link.channel, method)
        if method in KSERVE_METHODS:
            link.calls[method] = unary
        return unary


def passed_on(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """The part of a caller's metadata that goes to the upstream."""
    return tuple(
        (key, value)
        for key, value in metadata
        if key not in NOT_FORWARDED and not key.startswith(NOT_FORWARDED_PREFIXES)
    )
