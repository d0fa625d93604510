"""A controller that may have lost its lead reads, and writes nothing: neither here nor in the mesh.

One that was frozen wakes up with work in its hands, before it has heard that another one leads. By
its own clock it knows at once that its lead is too old. What it had already begun to send when it
was frozen cannot be taken back.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from mesh.controller.management import Connected, Mesh, Shown
from mesh.controller.queue import Refused
from mesh.kube.port import FIELD_MANAGER, Json, Kind, Kube, KubeEvent, KubeFailed, Listing

# Whether nobody else can lead at this moment.
IsSure = Callable[[], bool]
UNSURE = "not written, the lead was not renewed in time"


class FencedKube:
    """A Kube; what is not written for want of a lead is a KubeFailed without a status."""

    def __init__(self, kube: Kube, is_sure: IsSure) -> None:
        self._kube = kube
        self._is_sure = is_sure

    async def list(self, kind: Kind, namespace: str = "", name: str = "") -> Listing:
        return await self._kube.list(kind, namespace, name)

    def watch(
        self, kind: Kind, namespace: str = "", after: str = "", name: str = ""
    ) -> AsyncGenerator[KubeEvent, None]:
        return self._kube.watch(kind, namespace, after, name)

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return await self._kube.get(kind, namespace, name)

    async def apply(
        self, obj: Json, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Json:
        self._check()
        return await self._kube.apply(obj, manager=manager, dry_run=dry_run)

    async def apply_status(self, obj: Json) -> Json | None:
        self._check()
        return await self._kube.apply_status(obj)

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self._check()
        await self._kube.delete(kind, namespace, name)

    async def event(
        self, about: Json, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        self._check()
        await self._kube.event(about, reason, message, is_warning=is_warning)

    def _check(self) -> None:
        if not self._is_sure():
            raise KubeFailed(0, UNSURE)


class FencedMesh:
    """A Mesh; what is not written for want of a lead is Refused."""

    def __init__(self, mesh: Mesh, is_sure: IsSure) -> None:
        self._mesh = mesh
        self._is_sure = is_sure

    async def apply(self, obj: Json, owner: str) -> None:
        self._check()
        await self._mesh.apply(obj, owner)

    async def delete(self, name: str, owner: str) -> None:
        self._check()
        await self._mesh.delete(name, owner)

    async def set_runtimes(self, runtimes: Sequence[Json]) -> None:
        self._check()
        await self._mesh.set_runtimes(runtimes)

    async def read(self, kind: str) -> list[Shown]:
        return await self._mesh.read(kind)

    def follow(self, kind: str, begun: Callable[[], None] | None = None) -> AsyncIterator[Shown]:
        return self._mesh.follow(kind, begun)

    def _check(self) -> None:
        if not self._is_sure():
            raise Refused(UNSURE)


def fenced(connected: Connected, is_sure: IsSure) -> Connected:
    """Connections to the same mesh."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[Mesh]:
        async with connected() as mesh:
            yield FencedMesh(mesh, is_sure)

    return connect
