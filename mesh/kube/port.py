"""What we need of the API of Kubernetes, over plain JSON objects."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

FIELD_MANAGER = "wmlserving-controller"

# Answers that the same call gets again: what is written is wrong, or not allowed.
REFUSALS = (400, 403, 422)

Json = dict[str, Any]


class Gone(Exception):
    """The resource version is too old to be watched from (410): list again."""


class KubeFailed(Exception):
    """A call was refused, with an HTTP status, or got no answer: status 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}" if status else f"no answer: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects, as it is addressed."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    items: tuple[Json, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class KubeEvent:
    """`type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Json


class Kube(Protocol):
    """Objects of a cluster; with a `name`, that one alone.

    Writes are server-side applies that take fields over by force. Every call may raise KubeFailed.
    """

    async def list(self, kind: Kind, namespace: str = "", name: str = "") -> Listing: ...

    def watch(
        self, kind: Kind, namespace: str = "", after: str = "", name: str = ""
    ) -> AsyncGenerator[KubeEvent, None]:
        """Changes after a resource version; raises Gone."""
        ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None: ...

    async def apply(
        self, obj: Json, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Json: ...

    async def apply_status(self, obj: Json) -> Json | None:
        """Its status alone; None where the object is gone."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Does nothing where there is none."""
        ...

    async def event(
        self, about: Json, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        """In the namespace of `about`. One that is refused is logged: nothing waits for a word."""
        ...
