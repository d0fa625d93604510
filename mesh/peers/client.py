"""The peers port over gRPC: `wml_peer.proto`."""

from typing import Any

import grpc
import grpc.aio

from mesh.core.errors import Unavailable
from mesh.core.ids import NodeId, Revision
from mesh.peers.links import CONNECT_S, Links
from mesh.peers.port import Ask, FailedThere, LoadedThere, Memory, NotThere, Outcome
from mesh.wire.pb import wml_peer_pb2 as pb
from mesh.wire.pb import wml_peer_pb2_grpc as pb_grpc


class GrpcPeers:
    """Asks over `links`, which the router's calls go over as well; whoever made it closes it."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def hello(self, address: str) -> NodeId:
        try:
            answer = await self._stub(address).Hello(pb.HelloRequest(), timeout=CONNECT_S)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(address, error) from error
        return NodeId(answer.node)

    async def ensure_loaded(self, address: str, ask: Ask) -> Outcome:
        request = pb.EnsureLoadedRequest(
            model=ask.model,
            purpose=ask.purpose,
            revision=ask.revision,
            protected=sorted(ask.protected),
            used_s=ask.used_s,
        )
        stub = await self._connected(address)
        try:
            answer = await stub.EnsureLoaded(request)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(address, error) from error
        match answer.WhichOneof("outcome"):
            case "loaded":
                return LoadedThere(answer.loaded.size_bytes, answer.since_s)
            case "failed":
                return FailedThere(answer.failed.reason, answer.since_s)
            case _:
                return NotThere(answer.not_here.reason, Revision(answer.not_here.revision))

    async def recollect(self, address: str, store_id: str, revision: Revision) -> Memory | None:
        stub = await self._connected(address)
        seen, entries = revision, dict[str, bytes]()
        request = pb.RecollectRequest(store_id=store_id, revision=revision)
        try:
            async for part in stub.Recollect(request):
                seen = Revision(part.revision)
                entries.update((entry.key, entry.value) for entry in part.entries)
        except grpc.aio.AioRpcError as error:
            raise _unavailable(address, error) from error
        return Memory(seen, entries) if seen > revision else None

    async def farewell(self, address: str, node: NodeId) -> None:
        stub = await self._connected(address)
        try:
            await stub.Farewell(pb.FarewellRequest(node=node))
        except grpc.aio.AioRpcError as error:
            raise _unavailable(address, error) from error

    async def until_lost(self, address: str) -> None:
        await self._links.until_lost(address)

    async def forget(self, address: str) -> None:
        await self._links.forget(address)

    async def close(self) -> None:
        await self._links.close()

    async def _connected(self, address: str) -> Any:
        """A stub on a connection that stands. Raises Unavailable."""
        if not await self._links.connect(address):
            raise Unavailable(f"node at {address} cannot be reached")
        return self._stub(address)

    def _stub(self, address: str) -> Any:
        return pb_grpc.PeerStub(self._links.channel(address))


def _unavailable(address: str, error: grpc.aio.AioRpcError) -> Unavailable:
    return Unavailable(f"node at {address} does not answer: {error.details()}")
