"""The internal door: what nodes ask of each other, and the calls that they pass on.

A call that was passed on goes to the copy on this node or is refused as not begun; it is never
passed on again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import Any, TypeAlias

import grpc
import grpc.aio

from mesh.agent.calls import CopyBusy
from mesh.agent.copy import Copy
from mesh.agent.engine import Node
from mesh.agent.remote import MODEL_HEADER
from mesh.core.errors import MeshError
from mesh.core.ids import ModelId, NodeId, Revision
from mesh.ops.clock import monotonic_s
from mesh.ops.tasks import Tasks
from mesh.peers.port import Ask, FailedThere, LoadedThere, NotThere
from mesh.peers.tls import NodeTls
from mesh.wire.pb import wml_peer_pb2 as pb
from mesh.wire.pb import wml_peer_pb2_grpc as pb_grpc
from router.forward import STREAM_HEADER, Forwarder, NotSent, passed_on
from router.guard import GuardedServer, check
from router.hop import ACCEPTED, NotBegun, Why, trailer
from router.refusal import Context, pass_error, refuse
from router.server import ServerLimits, listen, server_options

# Records in a message: a few hundred bytes each.
A_PART = 200

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class PeerService(pb_grpc.PeerServicer):
    """The calls of wml_peer.proto."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def register(self, server: grpc.aio.Server) -> None:
        pb_grpc.add_PeerServicer_to_server(self, server)

    async def Hello(self, request: pb.HelloRequest, context: Context) -> Any:  # noqa: N802
        if self._node.has_left:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the node has left")
        revision = self._node.follower.revision
        return pb.HelloResponse(node=self._node.identity.id, revision=revision)

    async def EnsureLoaded(  # noqa: N802
        self, request: pb.EnsureLoadedRequest, context: Context
    ) -> Any:
        ask = Ask(
            ModelId(request.model),
            request.purpose,
            Revision(request.revision),
            frozenset(ModelId(model) for model in request.protected),
            request.used_s,
        )
        match await self._node.ensure_loaded(ask):
            case LoadedThere(size_bytes=size_bytes, since_s=since_s):
                loaded = pb.Loaded(size_bytes=size_bytes)
                return pb.EnsureLoadedResponse(loaded=loaded, since_s=since_s)
            case FailedThere(reason=reason, since_s=since_s):
                return pb.EnsureLoadedResponse(failed=pb.Failed(reason=reason), since_s=since_s)
            case NotThere(reason=reason, revision=revision):
                not_here = pb.NotHere(reason=reason, revision=revision)
                return pb.EnsureLoadedResponse(not_here=not_here)

    async def Farewell(self, request: pb.FarewellRequest, context: Context) -> Any:  # noqa: N802
        await self._node.let_go(NodeId(request.node))
        return pb.FarewellResponse()

    async def Recollect(  # noqa: N802
        self, request: pb.RecollectRequest, context: Context
    ) -> AsyncIterator[Any]:
        seen = self._node.memory.since(request.store_id, Revision(request.revision))
        if seen is None:
            return
        revision, entries = seen
        yield pb.Recollected(revision=revision)
        while part := [*islice(entries, A_PART)]:
            told = [pb.Recollection(key=key, value=value) for key, value in part]
            yield pb.Recollected(revision=revision, entries=told)
            await asyncio.sleep(0)  # others are served meanwhile


class PassedOn(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs only
    """The calls that another node passed on, of whatever method.

    `is_guarded`: whoever calls must show the certificate of a node. It looks for itself, since that
    costs 1 µs a call, and wrapping what serves it, each time anew, 6.
    """

    def __init__(self, node: Node, forwarder: Forwarder, *, is_guarded: bool) -> None:
        self._node = node
        self._forwarder = forwarder
        self._is_guarded = is_guarded
        self._in_flight = 0
        self._came_s = 0.0
        self._tasks = Tasks()

    def is_quiet(self, for_s: float) -> bool:
        """Whether nothing is in flight, and nothing has come for so long."""
        return not self._in_flight and monotonic_s() - self._came_s >= for_s

    def service(self, handler_call_details: Any) -> "Handler | None":
        metadata = dict(handler_call_details.invocation_metadata)
        given = metadata.get(MODEL_HEADER)
        if given is None:
            return None
        model = ModelId(bytes(given).decode())
        method = str(handler_call_details.method)
        if STREAM_HEADER in metadata:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, model))
        return grpc.unary_unary_rpc_method_handler(self._unary(method, model))

    def _unary(self, method: str, model: ModelId) -> Any:
        async def handle(message: bytes, context: Context) -> bytes:
            copy = await self._enter(model, context)
            try:
                metadata = passed_on(context.invocation_metadata() or ())
                left_s = context.time_remaining()
                reply = await self._forwarder.unary(copy, method, message, metadata, left_s)
            except NotSent:
                await self._refuse(context, Why.NOT_SENT)
            except CopyBusy as error:
                await refuse(error, context, trailer(self._not_begun(Why.BUSY)))
            except MeshError as error:
                await refuse(error, context)
            except grpc.aio.AioRpcError as error:
                await self._end(error, model, context)
            finally:
                self._leave(copy)
            if reply.initial:
                await context.send_initial_metadata(reply.initial)
            if reply.trailing:
                context.set_trailing_metadata(reply.trailing)
            return reply.message

        return handle

    def _stream(self, method: str, model: ModelId) -> Any:
        async def handle(requests: Any, context: Context) -> None:
            copy = await self._enter(model, context)
            try:
                metadata = passed_on(context.invocation_metadata() or ())
                left_s = context.time_remaining()
                async with self._forwarder.stream(copy, method, metadata, left_s) as call:
                    await context.send_initial_metadata(((ACCEPTED, "1"),))
                    await self._relay(call, copy, requests, context)
            except NotSent:
                await self._refuse(context, Why.NOT_SENT)
            except CopyBusy as error:
                await refuse(error, context, trailer(self._not_begun(Why.BUSY)))
            except MeshError as error:
                await refuse(error, context)
            except grpc.aio.AioRpcError as error:
                await self._end(error, model, context)
            finally:
                self._leave(copy)

        return handle

    async def _relay(self, call: Any, copy: Copy, requests: Any, context: Context) -> None:
        feeding = self._tasks.spawn(_feed(call, copy, requests), "feed a stream")
        try:
            async for message in call:
                await context.write(message)
            context.set_trailing_metadata(await call.trailing_metadata())
        finally:
            call.cancel()
            feeding.cancel()

    async def _enter(self, model: ModelId, context: Context) -> Copy:
        if self._is_guarded:
            await check(context)
        self._came_s = monotonic_s()
        copy = self._node.copy(model)
        if self._node.has_left or copy is None or not copy.is_loaded:
            await self._refuse(context, Why.NOT_HERE)
        self._in_flight += 1
        assert copy is not None  # noqa: S101 - refusing ends the call
        copy.enter(self._came_s)
        return copy

    def _leave(self, copy: Copy) -> None:
        self._in_flight -= 1
        copy.leave()

    async def _end(self, error: grpc.aio.AioRpcError, model: ModelId, context: Context) -> None:
        """As the runtime ended it, unless it does not know what it should hold."""
        if error.code() is grpc.StatusCode.NOT_FOUND and await self._node.recheck(model):
            await self._refuse(context, Why.NOT_HERE)
        await pass_error(error, context)

    async def _refuse(self, context: Context, why: Why) -> None:
        said = trailer(self._not_begun(why))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not begun", said)

    def _not_begun(self, why: Why) -> NotBegun:
        return NotBegun(why, self._node.follower.revision)


class InternalServer:
    """Management, and what nodes ask of each other, on one address.

    `services` add themselves to the server. With `tls` nobody without a certificate of the mesh's
    authority, made out to a node, gets an answer.
    """

    def __init__(
        self,
        services: Iterable[Callable[[grpc.aio.Server], None]],
        passed_on_calls: PassedOn,
        limits: ServerLimits,
        tls: NodeTls | None,
    ) -> None:
        self._tls = tls
        self._server = grpc.aio.server(options=server_options(limits))
        self._server.add_generic_rpc_handlers((passed_on_calls,))
        server: Any = self._server if tls is None else GuardedServer(self._server)
        for register in services:
            register(server)

    async def start(self, address: str) -> int:
        """Listens, and says on which port. Raises CannotListen."""
        credentials = None if self._tls is None else self._tls.server_credentials()
        port = listen(self._server, address, credentials)
        await self._server.start()
        return port

    async def stop(self, grace_s: float | None) -> None:
        await self._server.stop(grace_s)


async def _feed(call: Any, copy: Copy, requests: Any) -> None:
    """What comes from the other node goes to the runtime, until either ends."""
    try:
        async for message in requests:
            copy.touch(monotonic_s())
            await call.write(message)
        await call.done_writing()
    except grpc.aio.AioRpcError:
        pass  # the runtime ended the call: who reads its answers reports how
