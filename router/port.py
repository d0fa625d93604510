"""What the router needs of the mesh: a table of routes that are ready, and one question.

A native data plane lives on the same two.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mesh.agent.calls import Calls, Gate
from mesh.core.ids import ModelId


class Upstream(Protocol):
    """A Loaded copy: `address` is the gRPC target that serves it under its `id`.

    `hop` is empty where that is the runtime beside us, else what another node must be told.
    """

    @property
    def id(self) -> ModelId: ...

    @property
    def address(self) -> str: ...

    @property
    def hop(self) -> Sequence[tuple[str, str | bytes]]: ...

    @property
    def calls(self) -> Calls:
        """Which methods its runtime serves, and how; only where there is no `hop`."""
        ...

    @property
    def gate(self) -> Gate | None:
        """What each call to the runtime must pass, if anything; only where there is no `hop`."""
        ...

    def enter(self, now: float) -> None:
        """A request begins; `now` in monotonic seconds. The copy stays until as many have left."""
        ...

    def touch(self, now: float) -> None:
        """It is in use, still: `now` in monotonic seconds."""
        ...

    def took(self, time_ms: float) -> None:
        """A call to it ended after that long."""
        ...

    def leave(self) -> None:
        """A request ended."""
        ...


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh as the router sees it.

    `routes`: the Loaded copies behind each Predictor that has any; read at each request.
    `pick`: one of the copies of a route.
    `is_fresh`: whether the routes are from now; `now` in monotonic seconds.
    `resolve`: waits until a name has a route; its answer is entered once, and must be left.
    `recheck`: after a NOT_FOUND from an upstream, whether it lost the model: asking again helps.
    `unreachable`: a connection to this copy's node failed, so that it has executed nothing.
    `not_here`: the node of this copy says that it has none, and the store's revision it has seen.
    `is_model_ready`: whether an inference would be answered; raises ModelNotFound.
    `is_ready`: whether this node would serve a new request.
    """

    routes: Mapping[str, Sequence[Upstream]]
    pick: Callable[[Any], Upstream]
    is_fresh: Callable[[float], bool]
    resolve: Callable[[str], Awaitable[Upstream]]
    recheck: Callable[[ModelId], Awaitable[bool]]
    unreachable: Callable[[Any], None]
    not_here: Callable[[Any, int], Awaitable[None]]
    is_model_ready: Callable[[str], bool]
    is_ready: Callable[[], bool]
