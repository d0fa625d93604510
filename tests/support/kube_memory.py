"""An API server in memory: objects with resource versions, listed, watched, applied and replaced.

It does not imitate: admission, validation, defaults, who owns which field (an apply merges one
level deep), garbage collection, or any controller of Kubernetes.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import AsyncGenerator
from typing import Any

from mesh.kube.port import (
    FIELD_MANAGER,
    Gone,
    Kind,
    KubeEvent,
    KubeFailed,
    Listing,
)

Json = dict[str, Any]
Key = tuple[str, str, str]


class MemoryKube:
    """`calls` counts by verb; `is_away` fails every call, `bad_events` the next so many events.

    `refusals`: what an apply of an object of that name is answered with.
    """

    def __init__(self) -> None:
        self.objects: dict[Key, Json] = {}
        self.calls: Counter[str] = Counter()
        self.events: list[tuple[str, str, str]] = []
        self.is_away = False
        self.bad_events = 0
        self.refusals: dict[str, Exception] = {}
        self._version = 0
        self._uids = 0
        self._log: list[tuple[int, Key, KubeEvent]] = []
        self._moved = asyncio.Event()

    # As users do.

    def put(self, obj: Json) -> Json:
        """Creates or changes one; a changed spec is a new generation."""
        key = _key(obj)
        before = self.objects.get(key)
        made = copy.deepcopy(obj)
        meta = made["metadata"]
        if before is None:
            self._uids += 1
            meta |= {"uid": f"uid-{self._uids}", "generation": 1}
        else:
            is_same = before.get("spec") == made.get("spec")
            old = before["metadata"]
            meta |= {"uid": old["uid"], "generation": old["generation"] + (not is_same)}
            if "status" in before:
                made.setdefault("status", before["status"])
        return self._store(key, made, "ADDED" if before is None else "MODIFIED")

    def remove(self, kind: str, name: str, namespace: str = "ns") -> None:
        key = (kind, namespace, name)
        gone = self.objects.pop(key)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(key, KubeEvent("DELETED", gone))

    def status(self, kind: str, name: str, namespace: str = "ns") -> Json:
        return dict(self.objects[kind, namespace, name].get("status") or {})

    # The port.

    async def list(self, kind: Kind, namespace: str = "", name: str = "") -> Listing:
        self._called("list")
        found = [
            copy.deepcopy(item)
            for key, item in self.objects.items()
            if _is_meant(key, kind, namespace, name)
        ]
        return Listing(tuple(found), str(self._version))

    async def watch(
        self, kind: Kind, namespace: str = "", after: str = "", name: str = ""
    ) -> AsyncGenerator[KubeEvent, None]:
        self._called("watch")
        seen = int(after)
        while True:
            if self._log and seen < self._log[0][0] - 1:
                raise Gone
            moved = self._moved
            for version, key, event in list(self._log):
                if version > seen:
                    seen = version
                    if _is_meant(key, kind, namespace, name):
                        yield copy.deepcopy(event)
            await moved.wait()
            if self.is_away:
                raise KubeFailed(0, "connection reset")

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        self._called("get")
        return copy.deepcopy(self.objects.get((kind.kind, namespace, name)))

    async def apply(
        self, obj: Json, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Json:
        self._called("apply")
        if obj["metadata"]["name"] in self.refusals:
            raise self.refusals[obj["metadata"]["name"]]
        if dry_run:
            return copy.deepcopy(obj)
        before = self.objects.get(_key(obj), {})
        merged = {**before, **obj, "metadata": {**before.get("metadata", {}), **obj["metadata"]}}
        if isinstance(before.get("spec"), dict):
            merged["spec"] = {**before["spec"], **obj.get("spec", {})}
        return copy.deepcopy(self.put(merged))

    async def apply_status(self, obj: Json) -> Json | None:
        self._called("status")
        key = _key(obj)
        before = self.objects.get(key)
        if before is None:
            return None
        made = {**copy.deepcopy(before), "status": copy.deepcopy(obj["status"])}
        return copy.deepcopy(self._store(key, made, "MODIFIED"))

    async def create(self, obj: Json) -> Json:
        self._called("create")
        if _key(obj) in self.objects:
            raise KubeFailed(409, "already exists")
        return copy.deepcopy(self.put(obj))

    async def replace(self, obj: Json) -> Json:
        self._called("replace")
        before = self.objects.get(_key(obj))
        version = obj["metadata"].get("resourceVersion")
        if before is None or before["metadata"]["resourceVersion"] != version:
            raise KubeFailed(409, "the object has been modified")
        return copy.deepcopy(self.put(obj))

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self._called("delete")
        if (kind.kind, namespace, name) in self.objects:
            self.remove(kind.kind, name, namespace)

    async def event(
        self, about: Json, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        self._called("event")
        if self.bad_events:
            self.bad_events -= 1
            raise KubeFailed(500, "etcdserver: request timed out")
        self.events.append((about["metadata"]["name"], reason, message))

    # Faults.

    def go(self) -> None:
        """Nothing answers any more, and watches break."""
        self.is_away = True
        self._ring()

    def come_back(self) -> None:
        self.is_away = False

    def forget_changes(self) -> None:
        """What was before now cannot be watched from."""
        self._log = [(self._version + 1, ("", "", ""), KubeEvent("ADDED", {}))]

    def _called(self, verb: str) -> None:
        self.calls[verb] += 1
        if self.is_away:
            raise KubeFailed(0, "connection refused")

    def _store(self, key: Key, obj: Json, how: str) -> Json:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[key] = obj
        self._tell(key, KubeEvent(how, copy.deepcopy(obj)))
        return obj

    def _tell(self, key: Key, event: KubeEvent) -> None:
        self._log.append((self._version, key, event))
        self._ring()

    def _ring(self) -> None:
        rung, self._moved = self._moved, asyncio.Event()
        rung.set()


def _is_meant(key: Key, kind: Kind, namespace: str, name: str) -> bool:
    its_kind, its_namespace, its_name = key
    return its_kind == kind.kind and namespace in ("", its_namespace) and name in ("", its_name)


def _key(obj: Json) -> Key:
    return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
