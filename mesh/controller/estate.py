"""The namespaces that a controller works in: those that it was told, or all that are labelled.

Each is worked on by itself, with a mesh, certificates and queues of its own: what fails in one is
tried again there and disturbs no other. One that is not to be worked on any more, as its label or
itself is gone, is left as it is: what is in it goes on serving.
"""

import asyncio
import logging
from collections.abc import Callable, Set
from typing import Generic, Protocol, TypeVar

from mesh.controller.names import ENABLED
from mesh.kube.kinds import NAMESPACE
from mesh.kube.port import Json, Kube
from mesh.kube.reflector import Reflector
from mesh.ops.logs import bound

log = logging.getLogger(__name__)


class Work(Protocol):
    """What there is to do in a namespace; `run` is for ever."""

    @property
    def is_synced(self) -> bool: ...

    async def run(self) -> None: ...


W = TypeVar("W", bound=Work)


class Estate(Generic[W]):
    """`run` it. `made` makes the work of a namespace. `told` None: all that are labelled."""

    def __init__(self, kube: Kube, told: Set[str] | None, made: Callable[[str], W]) -> None:
        self.works: dict[str, W] = {}
        self._told = told
        self._made = made
        self._moved = asyncio.Event()
        self._moved.set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._reflector = Reflector(kube, NAMESPACE, "", lambda *_: self._moved.set())

    @property
    def why_not_ready(self) -> str:
        """In words; a namespace that was found by its label and lacks something is no reason."""
        if self._told is None:
            is_listed = self._reflector.synced.is_set()
            return "" if is_listed else "the namespaces have not been listed yet"
        behind = [name for name in sorted(self._told) if not self._is_synced(name)]
        return f"not listed yet in {', '.join(behind)}" if behind else ""

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            if self._told is None:
                group.create_task(self._reflector.run())
            while True:
                await self._moved.wait()
                self._moved.clear()
                self._settle(group)

    def _settle(self, group: asyncio.TaskGroup) -> None:
        wanted = self._wanted()
        for name in sorted(self.works.keys() - wanted):
            log.info("namespace left", extra={"namespace": name})
            del self.works[name]
            self._running[name].cancel()
        for name in sorted(wanted - self.works.keys()):
            log.info("namespace taken on", extra={"namespace": name})
            work = self.works[name] = self._made(name)
            before = self._running.get(name)
            with bound(namespace=name):
                self._running[name] = group.create_task(_after(before, work), name=f"work: {name}")

    def _wanted(self) -> Set[str]:
        if self._told is not None:
            return self._told
        return {name for name, item in self._reflector.objects.items() if _is_enabled(item)}

    def _is_synced(self, name: str) -> bool:
        work = self.works.get(name)
        return work is not None and work.is_synced


async def _after(before: asyncio.Task[None] | None, work: Work) -> None:
    """One that was left and is taken on again has let go first."""
    if before is not None:
        await asyncio.wait({before})
    await work.run()


def _is_enabled(namespace: Json) -> bool:
    meta = namespace["metadata"]
    is_labelled = (meta.get("labels") or {}).get(ENABLED) == "true"
    return is_labelled and not meta.get("deletionTimestamp")
