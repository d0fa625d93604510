"""The way to etcd: a channel a member, the user's token, and one call at a time through them.

A call goes to the member that answered last, and on to another where that one is away; what may
have been carried out is never sent again. A connection is looked for before a call is sent, so that
an etcd that is away costs no time. Everything fails as EtcdFailure.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import SystemRandom
from typing import Any, TypeVar

import grpc
import grpc.aio

from mesh.registry.etcd_calls import AUTHENTICATE, Call, Request
from mesh.registry.etcd_errors import EtcdFailure, Kind, away, failure
from mesh.registry.etcd_history import History
from mesh.registry.etcd_settings import EtcdSettings
from mesh.wire.pb import etcd_pb2 as pb

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Metadata = tuple[tuple[str, str], ...]

# A call with its repetitions, and one try of a call that may be repeated on another member.
CALL_S = 5.0
TRY_S = 2.0
CONNECT_S = 2.0
FIRST_PAUSE_S = 0.05
LAST_PAUSE_S = 0.5
RENEWALS = 2

# etcd ends the connection of a client that pings more often than every 5 s, or without a call.
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # Without it a member whose kernel still answers (a frozen process) is waited for for ever.
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1_000)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
# A member that sees no leader says so, and ends its watches, instead of waiting for one.
REQUIRE_LEADER: Metadata = (("hasleader", "true"),)
READY = grpc.ChannelConnectivity.READY
BROKEN = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class Member:
    """One endpoint of etcd."""

    def __init__(self, target: str, settings: EtcdSettings) -> None:
        self.target = target
        credentials = settings.credentials()
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(target, credentials, options=OPTIONS)

    @property
    def is_connected(self) -> bool:
        return self.channel.get_state() is READY

    async def connect(self) -> bool:
        """Whether there is a connection, now or soon; False as soon as one fails."""
        try:
            async with asyncio.timeout(CONNECT_S):
                while (state := self.channel.get_state(try_to_connect=True)) is not READY:
                    if state in BROKEN:
                        return False
                    await self.channel.wait_for_state_change(state)
        except TimeoutError:
            return False
        return True

    async def ask(
        self, call: Call[Answer], request: Request, metadata: Metadata, timeout_s: float
    ) -> Answer:
        """One call. Raises EtcdFailure."""
        if call.is_stream:
            stream = self.stream(call, type(request), metadata, timeout_s)
            with foreseen():
                await stream.write(request)
                await stream.done_writing()
                read: Answer = await stream.read()
                stream.cancel()
            return read
        method: Any = self.channel.unary_unary(
            call.path,
            request_serializer=type(request).SerializeToString,
            response_deserializer=call.answer.FromString,  # type: ignore[attr-defined]
        )
        with foreseen():
            answer: Answer = await method(request, metadata=metadata, timeout=timeout_s)
        return answer

    def stream(
        self, call: Call[Any], request: Any, metadata: Metadata, timeout_s: float | None = None
    ) -> Any:
        """A stream of requests of this class, to be read and written within `foreseen`."""
        method: Any = self.channel.stream_stream(
            call.path,
            request_serializer=request.SerializeToString,
            response_deserializer=call.answer.FromString,
        )
        with foreseen():
            return method(metadata=metadata, timeout=timeout_s)


class Link:
    """All members; `close` it."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._members = [Member(target, settings) for target in settings.targets]
        SystemRandom().shuffle(self._members)  # Not all nodes at one member.
        self._token: str | None = None
        self._signing_in = asyncio.Lock()
        self._is_away = False
        self._limits: set[asyncio.Timeout] = set()
        self._broken: set[object] = set()
        self.is_closed = False
        self.history = History()

    @property
    def is_away(self) -> bool:
        """Whether etcd was away when it was last tried, or a watch waits for it now."""
        return self.is_closed or self._is_away or bool(self._broken)

    async def ask(
        self, call: Call[Answer], request: Request, *, is_repeatable: bool = True
    ) -> Answer:
        """The answer of a member. Raises EtcdFailure.

        One that is not `is_repeatable` is sent again only where it was certainly not carried out.
        """
        loop = asyncio.get_running_loop()
        end_s, pause_s, renewals = loop.time() + CALL_S, FIRST_PAUSE_S, 0
        while True:
            member, metadata = await self.enter()
            before = self.history.known
            rest_s = end_s - loop.time()
            try:
                answer = await member.ask(
                    call, request, metadata, min(rest_s, TRY_S) if is_repeatable else rest_s
                )
            except EtcdFailure as error:
                self.leave(member, error, metadata)
                renewals += error.kind is Kind.TOKEN
                is_over = loop.time() + pause_s >= end_s or renewals > RENEWALS
                if is_over or not _is_worth_another(error.kind, is_repeatable):
                    raise
            else:
                if call.is_current:
                    self.history.take(before, answer.header)  # type: ignore[attr-defined]
                return answer
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    async def enter(self) -> tuple[Member, Metadata]:
        """A member that is connected, and what to send along; raises EtcdFailure if none is."""
        member = await self._connected()
        if self._settings.userid is None:
            return member, REQUIRE_LEADER
        async with self._signing_in:
            if self._token is None:
                self._token = await self._sign_in(member)
        return member, (*REQUIRE_LEADER, ("token", self._token)) if self._token else REQUIRE_LEADER

    def leave(self, member: Member, error: EtcdFailure, metadata: Metadata) -> None:
        """What follows from a failed call: another member, or another token, for the next."""
        match error.kind:
            case Kind.AWAY | Kind.NOT_DONE:
                if self._members[0] is member:
                    self._members.append(self._members.pop(0))
            case Kind.TOKEN:
                if ("token", self._token) in metadata:
                    self._token = None

    @asynccontextmanager
    async def stream(self, call: Call[Any], request: Any) -> AsyncIterator[Any]:
        """A stream of requests of this class, to be read and written within `foreseen`.

        An EtcdFailure that leaves it counts against the member.
        """
        member, metadata = await self.enter()
        stream = member.stream(call, request, metadata)
        try:
            yield stream
        except EtcdFailure as error:
            self.leave(member, error, metadata)
            raise
        finally:
            stream.cancel()

    @asynccontextmanager
    async def within(self, limit_s: float) -> AsyncIterator[None]:
        """Raises EtcdFailure when the time is over, or by `close`.

        For the beginning of a stream: gRPC would not end it when its channel is closed.
        """
        try:
            async with asyncio.timeout(limit_s) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            raise away("the store is closed" if self.is_closed else "no answer in time") from None

    def broke(self, watch: object) -> None:
        """This watch has lost its stream; it is `mended` once it has another, or ends."""
        self._broken.add(watch)

    def mended(self, watch: object) -> None:
        self._broken.discard(watch)

    async def close(self) -> None:
        self.is_closed = True
        for limit in self._limits:
            limit.reschedule(0)
        for member in self._members:
            await member.channel.close(None)

    async def _connected(self) -> Member:
        for member in sorted(self._members, key=lambda member: not member.is_connected):
            if self.is_closed:
                break
            with foreseen():
                is_connected = await member.connect()
            if is_connected:
                if self._members[0] is not member:
                    self._members.remove(member)
                    self._members.insert(0, member)
                self._note(is_away=False)
                return member
        if self.is_closed:
            raise away("the store is closed")
        self._note(is_away=True)
        raise away(await self._why())

    async def _why(self) -> str:
        """In gRPC's words, why there is no connection."""
        member = self._members[0]
        try:
            await member.ask(AUTHENTICATE, pb.AuthenticateRequest(), (), TRY_S)
        except EtcdFailure as error:
            return f"{member.target}: {error.cause}"
        return f"{member.target}: no connection"

    async def _sign_in(self, member: Member) -> str:
        """A token; empty where etcd knows no users."""
        password = self._settings.password
        request = pb.AuthenticateRequest(
            name=self._settings.userid or "",
            password="" if password is None else password.get_secret_value(),
        )
        try:
            return (await member.ask(AUTHENTICATE, request, REQUIRE_LEADER, CALL_S)).token
        except EtcdFailure as error:
            if error.kind is Kind.NO_USERS:
                log.warning("etcd asks for no user, though one is set")
                return ""
            self.leave(member, error, ())
            raise

    def _note(self, *, is_away: bool) -> None:
        if is_away is not self._is_away:
            self._is_away = is_away
            endpoints = self._settings.endpoints
            if is_away:
                log.warning("etcd is away", extra={"endpoints": endpoints})
            else:
                log.info("etcd is back", extra={"endpoints": endpoints})


def _is_worth_another(kind: Kind, is_repeatable: bool) -> bool:
    return kind in (Kind.TOKEN, Kind.NOT_DONE) or (kind is Kind.AWAY and is_repeatable)


@contextmanager
def foreseen() -> Iterator[None]:
    """What gRPC raises becomes EtcdFailure."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise failure(error) from error
    except grpc.aio.UsageError as error:  # The channel was closed just before.
        raise away("the store is closed") from error
    except asyncio.CancelledError:
        # gRPC also raises it in a call whose channel is closed, though nobody cancels the task.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise away("the store is closed") from None
