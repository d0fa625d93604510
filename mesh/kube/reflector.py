"""Follows all objects of a kind: a listing, then every change, for ever.

A watch that ends is taken up where it was; one that cannot be (410) begins with a new listing,
whose differences are told as changes, deletions included. While the API server is away, what was
last seen stands.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from mesh.kube.port import Gone, Json, Kind, Kube, KubeFailed

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0

# The name of an object, and the object, or None where it is gone.
Changed = Callable[[str, Json | None], None]


class Reflector:
    """`objects` by name; with a `name`, that one alone is followed.

    `changed` is called, on the loop, after each change.
    """

    def __init__(
        self, kube: Kube, kind: Kind, namespace: str, changed: Changed, *, name: str = ""
    ) -> None:
        self.objects: dict[str, Json] = {}
        self.synced = asyncio.Event()
        self._kube = kube
        self._kind = kind
        self._namespace = namespace
        self._name = name
        self._changed = changed
        self._problem = ""

    async def run(self) -> None:
        pause_s = FIRST_PAUSE_S
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list()
                self._well()
                pause_s = FIRST_PAUSE_S
                version = await self._watch(version)
            except Gone:
                version = ""
            except KubeFailed as error:
                self._ill(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                if error.status:
                    version = ""

    async def _list(self) -> str:
        listing = await self._kube.list(self._kind, self._namespace, self._name)
        found = {item["metadata"]["name"]: item for item in listing.items}
        for name in self.objects.keys() - found.keys():
            self._put(name, None)
        for name, item in found.items():
            before = self.objects.get(name)
            if before is None or _version(before) != _version(item):
                self._put(name, item)
        self.synced.set()
        return listing.resource_version

    async def _watch(self, version: str) -> str:
        """Until it ends; where to go on."""
        watching = self._kube.watch(self._kind, self._namespace, version, self._name)
        async with aclosing(watching) as events:
            async for event in events:
                version = _version(event.object)
                if event.type != "BOOKMARK":
                    name = event.object["metadata"]["name"]
                    self._put(name, None if event.type == "DELETED" else event.object)
        return version

    def _put(self, name: str, item: Json | None) -> None:
        if item is None:
            self.objects.pop(name, None)
        else:
            # Who wrote which field takes as much as the spec, and nobody here asks for it.
            item["metadata"].pop("managedFields", None)
            self.objects[name] = item
        self._changed(name, item)

    def _well(self) -> None:
        if self._problem:
            log.info("objects are followed again", extra={"kind": self._kind.kind})
        self._problem = ""

    def _ill(self, error: KubeFailed) -> None:
        """Said once."""
        if str(error) != self._problem:
            self._problem = str(error)
            fields = {"kind": self._kind.kind, "problem": self._problem}
            log.warning("objects cannot be followed, the last ones stand", extra=fields)


def _version(item: Json) -> str:
    return str(item["metadata"]["resourceVersion"])
