"""The way of a stream: one upstream stream for each of a client's, both ways as bytes.

The first message names the Predictor, and the name in every message is replaced. What flows is
bounded by gRPC's own flow control: a message is read when the one before it was taken. A stream
holds its copy; one whose copy must leave is ended when the bound for requests in flight has passed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc.aio

from mesh.agent.calls import CopyBusy, Metadata
from mesh.core.errors import InvalidRequest, MeshError, Unavailable
from mesh.ops.clock import monotonic_s
from mesh.ops.tasks import Tasks
from mesh.wire.infer import read_head, with_name
from router.forward import Forwarder, NotSent, passed_on
from router.hop import ACCEPTED
from router.port import Upstream
from router.route import Router, left_s, name_in

Requests = AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Client:
    """The client's side of a stream. `deadline_s`: monotonic seconds, None without a deadline."""

    requests: Requests
    metadata: Iterable[tuple[str, str | bytes]]
    deadline_s: float | None
    send_initial: Callable[[Metadata], Awaitable[None]]
    send: Callable[[bytes], Awaitable[None]]


class NotAccepted(Exception):
    """A stream ended before anything of it was answered."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(str(error))
        self.error = error


class Streams:
    """Relays bidirectional streams whose messages name a Predictor in field 1."""

    def __init__(self, router: Router, forwarder: Forwarder) -> None:
        self._router = router
        self._forwarder = forwarder
        self._tasks = Tasks()

    async def relay(self, method: str, field: str, client: Client) -> Metadata:
        """Runs a stream to its end; the upstream's trailing metadata.

        Raises MeshError, or AioRpcError as the upstream gave it.
        """
        first = await anext(client.requests, None)
        if first is None:
            raise InvalidRequest(field, "the stream has no message")
        head = read_head(first, field)
        name = head.name or name_in(client.metadata)
        if not name:
            raise InvalidRequest(field, "required")
        tries = self._router.tries(client.metadata)
        while tries.left:
            upstream = await self._router.enter(name, client.deadline_s, tries)
            try:
                metadata = passed_on(client.metadata)
                within_s = left_s(client.deadline_s)
                async with self._forwarder.stream(upstream, method, metadata, within_s) as call:
                    await _begin(call, upstream, with_name(head, upstream.id))
                    return await self._run(_Feed(call, upstream, name, field), client)
            except NotSent:
                tries.not_sent(upstream)
            except CopyBusy as error:
                tries.met_busy(upstream, error)
            except NotAccepted as refusal:
                if not await tries.is_worth_another(upstream, refusal.error):
                    raise refusal.error from None
            finally:
                upstream.leave()
        raise Unavailable(f"the runtime of predictor {name!r} cannot be reached")

    async def _run(self, feed: "_Feed", client: Client) -> Metadata:
        call = feed.call
        feeding = self._tasks.spawn(feed.run(client.requests), "feed a stream")
        try:
            await _answer(call, client)
        except BaseException:
            if feed.error is not None:
                raise feed.error from None  # it ended the call, which is why the call failed
            raise
        finally:
            call.cancel()
            feeding.cancel()
        return tuple(await call.trailing_metadata())

    async def close(self) -> None:
        await self._tasks.close()


class _Feed:
    """The half of a stream that goes to the upstream; `error` is what was wrong with a message."""

    def __init__(self, call: Any, upstream: Upstream, name: str, field: str) -> None:
        self.call = call
        self.error: MeshError | None = None
        self._upstream = upstream
        self._name = name
        self._field = field

    async def run(self, requests: Requests) -> None:
        """Ends with the client's messages; an error in one of them ends the call."""
        try:
            async for message in requests:
                await self.call.write(self._addressed(message))
            await self.call.done_writing()
        except MeshError as error:
            self.error = error
            self.call.cancel()
        except grpc.aio.AioRpcError:
            pass  # the upstream ended the call: who reads its answers reports how

    def _addressed(self, message: bytes) -> bytes:
        head = read_head(message, self._field)
        if head.name not in ("", self._name):
            problem = f"{head.name!r} in a stream that began with {self._name!r}"
            raise InvalidRequest(self._field, problem)
        self._upstream.touch(monotonic_s())
        return with_name(head, self._upstream.id)


async def _begin(call: Any, upstream: Upstream, first: bytes) -> None:
    """Writes the first message; another node has begun the stream then.

    Raises NotAccepted. What the runtime sends ahead of its first message does not pass a second
    node.
    """
    try:
        await call.write(first)
        if upstream.hop and not _is_accepted(await call.initial_metadata()):
            await anext(aiter(call), None)  # raises what it ended with
    except grpc.aio.AioRpcError as error:
        raise NotAccepted(error) from error
    except BaseException:
        call.cancel()
        raise


async def _answer(call: Any, client: Client) -> None:
    initial = passed_on(await call.initial_metadata())
    if initial:
        await client.send_initial(initial)
    async for message in call:
        await client.send(message)


def _is_accepted(initial: Iterable[tuple[str, Any]] | None) -> bool:
    return any(key == ACCEPTED for key, _ in initial or ())
