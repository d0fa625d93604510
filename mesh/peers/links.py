"""The channels to other nodes: one an address, shared by all that is said to it.

A peer that does not answer is to be noticed within five seconds, also when packets vanish, and one
that is back within one.
"""

import asyncio

import grpc
import grpc.aio

from mesh.peers.tls import NODE_NAME, NodeTls

KEEPALIVE_MS = 2_000
PING_TIMEOUT_MS = 2_500
CONNECT_S = 1.0

PEER_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    # Without it a peer whose kernel still answers (a frozen process) is waited for for ever.
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.client_idle_timeout_ms", 2**31 - 1),
    ("grpc.enable_retries", 0),
)
READY = grpc.ChannelConnectivity.READY
BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class Links:
    """`tls`: None where nodes speak in the clear, for loopback and networks that are closed."""

    def __init__(self, tls: NodeTls | None = None) -> None:
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel to a node; it begins to connect."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open(address)
        return channel

    async def connect(self, address: str) -> bool:
        """Whether there is a connection, now or within a second; False once one is refused."""
        channel = self.channel(address)
        try:
            async with asyncio.timeout(CONNECT_S):
                while (state := channel.get_state(try_to_connect=True)) is not READY:
                    if state in BROKEN:
                        return False
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def until_lost(self, address: str) -> None:
        """Returns when there is no connection, or none any more."""
        if await self.connect(address):
            await self.channel(address).wait_for_state_change(READY)

    async def forget(self, address: str) -> None:
        if channel := self._channels.pop(address, None):
            await channel.close(None)

    async def close(self) -> None:
        while self._channels:
            await self.forget(next(iter(self._channels)))

    def _open(self, address: str) -> grpc.aio.Channel:
        if self._tls is None:
            return grpc.aio.insecure_channel(address, options=PEER_OPTIONS)
        options = (*PEER_OPTIONS, ("grpc.ssl_target_name_override", NODE_NAME))
        return grpc.aio.secure_channel(address, self._tls.channel_credentials(), options=options)
