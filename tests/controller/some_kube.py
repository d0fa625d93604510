"""Just enough of an API server for reconciling runtimes: objects, generations, who applied what."""

import copy
from collections.abc import AsyncGenerator
from typing import Any

from mesh.kube.port import FIELD_MANAGER, Kind, KubeEvent, Listing

Json = dict[str, Any]


class SomeKube:
    """`written` has every write, as (verb, kind, manager)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.written: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str]] = []

    def put(self, obj: Json) -> None:
        """As a user applies it."""
        key = obj["kind"], obj["metadata"]["name"]
        before = self.objects.get(key, {})
        generation = before.get("metadata", {}).get("generation", 0) + 1
        made = copy.deepcopy(obj)
        made["metadata"] |= {"generation": generation, "uid": f"uid-{obj['metadata']['name']}"}
        if "status" in before:
            made["status"] = before["status"]
        self.objects[key] = made

    async def list(self, kind: Kind, namespace: str = "", name: str = "") -> Listing:
        found = [item for (its, _), item in self.objects.items() if its == kind.kind]
        return Listing(tuple(found), "1")

    async def watch(
        self, kind: Kind, namespace: str = "", after: str = "", name: str = ""
    ) -> AsyncGenerator[KubeEvent, None]:
        events: tuple[KubeEvent, ...] = ()
        for item in events:
            yield item

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        return copy.deepcopy(self.objects.get((kind.kind, name)))

    async def apply(
        self, obj: Json, *, manager: str = FIELD_MANAGER, dry_run: bool = False
    ) -> Json:
        self.written.append(("apply", obj["kind"], manager))
        key = obj["kind"], obj["metadata"]["name"]
        before = self.objects.get(key)
        made = copy.deepcopy(before or obj)
        generation = made["metadata"].get("generation", 0)
        spec = {**made.get("spec", {}), **obj.get("spec", {})}
        if before is None or spec != made.get("spec"):
            generation += 1
        if obj["kind"] == "Deployment":
            spec.setdefault("replicas", 1)
        if spec:
            made["spec"] = copy.deepcopy(spec)
        made["metadata"]["generation"] = generation
        self.objects[key] = made
        return copy.deepcopy(made)

    async def apply_status(self, obj: Json) -> Json | None:
        self.written.append(("status", obj["kind"], FIELD_MANAGER))
        found = self.objects.get((obj["kind"], obj["metadata"]["name"]))
        if found is not None:
            found["status"] = copy.deepcopy(obj["status"])
        return found

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        self.written.append(("delete", kind.kind, FIELD_MANAGER))
        self.objects.pop((kind.kind, name), None)

    async def event(
        self, about: Json, reason: str, message: str, *, is_warning: bool = False
    ) -> None:
        self.events.append((reason, message))
