"""The way of a request: name, route, upstream, and when to try again.

In the steady state this is one look-up, one choice and one call. Asking again is decided here
alone, by the type of what went wrong.
"""

from collections.abc import Iterable

import grpc
import grpc.aio

from mesh.core.errors import InvalidRequest, Unavailable
from mesh.ops.clock import monotonic_s
from mesh.wire.infer import read_head, with_name
from router.forward import Forwarder, NotSent, Reply, passed_on
from router.port import Mesh, Upstream
from router.waiting import WaitingRoom

TRIES = 3
NAME_HEADERS = ("mm-vmodel-id", "mm-vmodel-id-bin")


class Router:
    """Routes unary calls whose message names a Predictor in field 1."""

    def __init__(self, mesh: Mesh, waiting: WaitingRoom, forwarder: Forwarder) -> None:
        self._mesh = mesh
        self._waiting = waiting
        self._forwarder = forwarder

    async def unary(
        self,
        method: str,
        field: str,
        message: bytes,
        metadata: Iterable[tuple[str, str | bytes]],
        deadline_s: float | None,
    ) -> Reply:
        """The answer of the model that is active behind the name.

        `field` is what the name's field is called; `deadline_s` in monotonic seconds. Raises
        MeshError, or AioRpcError as the upstream gave it.
        """
        head = read_head(message, field)
        name = head.name or name_in(metadata)
        if not name:
            raise InvalidRequest(field, "required")
        forwarded = passed_on(metadata)
        has_rechecked = False
        for _ in range(TRIES):
            upstream = await self.enter(name, deadline_s)
            try:
                return await self._forwarder.unary(
                    upstream.address,
                    method,
                    with_name(head, upstream.id),
                    forwarded,
                    left_s(deadline_s),
                )
            except NotSent:
                continue
            except grpc.aio.AioRpcError as error:
                is_lost = error.code() is grpc.StatusCode.NOT_FOUND and not has_rechecked
                if not is_lost or not await self._mesh.recheck(upstream.id):
                    raise
                has_rechecked = True
            finally:
                upstream.leave()
        raise Unavailable(f"the runtime of predictor {name!r} cannot be reached")

    async def enter(self, name: str, deadline_s: float | None) -> Upstream:
        """A copy that serves the name, entered once: the caller must leave it. Raises MeshError."""
        if route := self._mesh.routes.get(name):
            upstream = route[0]
            upstream.enter(monotonic_s())
            return upstream
        return await self._waiting.wait(name, left_s(deadline_s))


def left_s(deadline_s: float | None) -> float | None:
    """The seconds until a monotonic deadline; None where there is none."""
    return None if deadline_s is None else max(0.0, deadline_s - monotonic_s())


def name_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The Predictor that metadata names, for messages that name none."""
    for key, value in metadata:
        if key in NAME_HEADERS:
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return ""
