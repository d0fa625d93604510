"""What the router needs of the mesh: a table of routes that are ready, and one question.

A native data plane lives on the same two.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.core.ids import ModelId


class Upstream(Protocol):
    """A Loaded copy: `address` is the gRPC target that serves it under its `id`."""

    @property
    def id(self) -> ModelId: ...

    @property
    def address(self) -> str: ...

    def enter(self, now: float) -> None:
        """A request begins; `now` in monotonic seconds. The copy stays until as many have left."""
        ...

    def touch(self, now: float) -> None:
        """It is in use, still: `now` in monotonic seconds."""
        ...

    def leave(self) -> None:
        """A request ended."""
        ...


@dataclass(frozen=True, slots=True)
class Mesh:
    """The mesh as the router sees it.

    `routes`: the Loaded copies behind each Predictor that has any; read at each request.
    `resolve`: waits until a name has a route; its answer is entered once, and must be left.
    `recheck`: after a NOT_FOUND from an upstream, whether it lost the model: asking again helps.
    `is_model_ready`: whether an inference would be answered; raises ModelNotFound.
    `is_ready`: whether this node would serve a new request.
    """

    routes: Mapping[str, Sequence[Upstream]]
    resolve: Callable[[str], Awaitable[Upstream]]
    recheck: Callable[[ModelId], Awaitable[bool]]
    is_model_ready: Callable[[str], bool]
    is_ready: Callable[[], bool]
