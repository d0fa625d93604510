"""The way of a request: name, route, upstream, and when to try again.

In the steady state this is one look-up, one choice and one call. Asking again is decided here
alone, by the type of what went wrong.
"""

from collections.abc import Iterable, Sequence

import grpc
import grpc.aio

from mesh.agent.calls import CopyBusy
from mesh.core.errors import InvalidRequest, Unavailable
from mesh.ops.clock import monotonic_s
from router.forward import Forwarder, NotSent, passed_on
from router.hop import Why, outcome
from router.naming import VMODEL_HEADER, Naming
from router.port import Mesh, Upstream
from router.unary import Reply
from router.waiting import WaitingRoom

TRIES = 3
# A copy that is gone on arrival costs no try; but a request does not go round for ever.
MAX_TURNS = 20
# ModelMesh's word for a call that is to stay on the node that it came to, where that has a copy.
BALANCED = ("mm-balanced", "true")
NAME_HEADERS = (VMODEL_HEADER, f"{VMODEL_HEADER}-bin")


class Router:
    """Routes unary calls whose message or metadata names a Predictor."""

    def __init__(self, mesh: Mesh, waiting: WaitingRoom, forwarder: Forwarder) -> None:
        self._mesh = mesh
        self._waiting = waiting
        self._forwarder = forwarder

    async def unary(
        self,
        method: str,
        naming: Naming,
        message: bytes,
        metadata: Iterable[tuple[str, str | bytes]],
        deadline_s: float | None,
    ) -> Reply:
        """The answer of the model that is active behind the name.

        `naming`: where the name is; `deadline_s` in monotonic seconds. Raises MeshError, or
        AioRpcError as the upstream gave it.
        """
        head = naming.read(message)
        name = head.name or name_in(metadata)
        if not name:
            raise InvalidRequest(naming.field, "required")
        forwarded = passed_on(metadata)
        tries = self.tries(metadata)
        while tries.left:
            upstream = self._at_hand(name, tries) or await self.enter(name, deadline_s, tries)
            try:
                return await self._forwarder.unary(
                    upstream,
                    method,
                    naming.write(head, upstream.id),
                    forwarded,
                    left_s(deadline_s),
                )
            except NotSent:
                tries.not_sent(upstream)
            except CopyBusy as error:
                tries.met_busy(upstream, error)
            except grpc.aio.AioRpcError as error:
                if not await tries.is_worth_another(upstream, error):
                    raise
            finally:
                upstream.leave()
        raise Unavailable(f"the runtime of predictor {name!r} cannot be reached")

    def tries(self, metadata: Iterable[tuple[str, str | bytes]]) -> "Tries":
        """For one call, with its metadata."""
        return Tries(self._mesh, is_balanced=BALANCED in tuple(metadata))

    async def enter(self, name: str, deadline_s: float | None, tries: "Tries") -> Upstream:
        """A copy that serves the name, entered once: the caller must leave it. Raises MeshError."""
        return self._at_hand(name, tries) or await self._waiting.wait(name, left_s(deadline_s))

    def _at_hand(self, name: str, tries: "Tries") -> Upstream | None:
        """As `enter`, where there is nothing to wait for."""
        now = monotonic_s()
        if not (route := self._mesh.routes.get(name)) or not self._mesh.is_fresh(now):
            return None
        if tries.busy:
            route = tries.others(route)
        has_choice = len(route) > 1 and not (tries.is_balanced and not route[0].hop)
        upstream = self._mesh.pick(route) if has_choice else route[0]
        upstream.enter(now)
        return upstream


class Tries:
    """How often a call is tried, and what is learnt from each that failed.

    A call that may have been executed is never tried again. `busy`: the copies for which as many
    wait as may; each is asked once, so that these cost no try. `is_balanced`: the caller spreads
    its calls over the nodes by itself.
    """

    def __init__(self, mesh: Mesh, *, is_balanced: bool = False) -> None:
        self._mesh = mesh
        self.is_balanced = is_balanced
        self._has_rechecked = False
        self._turns = 0
        self._busy_error: Exception | None = None
        self.busy: tuple[Upstream, ...] = ()
        self.left = TRIES

    def not_sent(self, upstream: Upstream) -> None:
        """The upstream could not be reached."""
        self.left -= 1
        self._mesh.unreachable(upstream)

    def met_busy(self, upstream: Upstream, error: Exception) -> None:
        """The copy is busy. Raises the error where that was known, or there were many."""
        self._turns += 1
        if upstream in self.busy or self._turns >= MAX_TURNS:
            raise error
        self.busy = (*self.busy, upstream)
        self._busy_error = error

    def others(self, route: Sequence[Upstream]) -> Sequence[Upstream]:
        """The copies that are not busy. Raises what the last one said where all are."""
        others = [upstream for upstream in route if upstream not in self.busy]
        if not others and self._busy_error is not None:
            raise self._busy_error
        return others

    async def is_worth_another(self, upstream: Upstream, error: grpc.aio.AioRpcError) -> bool:
        """Whether the upstream has not begun the call, or has lost the model."""
        if upstream.hop and (said := outcome(error)) is not None:
            if said.why is Why.BUSY:
                self.met_busy(upstream, error)
                return True
            await self._mesh.not_here(upstream, said.revision)
            if said.why is Why.NOT_SENT:
                self.left -= 1
            self._turns += 1
            return self._turns < MAX_TURNS
        if error.code() is not grpc.StatusCode.NOT_FOUND or self._has_rechecked or upstream.hop:
            return False
        self._has_rechecked = True
        self.left -= 1
        return await self._mesh.recheck(upstream.id)


def left_s(deadline_s: float | None) -> float | None:
    """The seconds until a monotonic deadline; None where there is none."""
    return None if deadline_s is None else max(0.0, deadline_s - monotonic_s())


def name_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The Predictor that metadata names, for messages that name none."""
    for key, value in metadata:
        if key in NAME_HEADERS:
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return ""
