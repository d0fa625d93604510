"""Just enough of an API server for reconciling runtimes: objects, generations, who applied what."""

import copy
from collections.abc import AsyncGenerator
from typing import Any

from mesh.kube.port import FIELD_MANAGER, Kind, KubeEvent, KubeFailed, Listing

Json = dict[str, Any]


class SomeKube:
    """`written` has every write, as (verb, kind, manager).

    `refusals`: what an apply of a kind is answered with. Of who owns which field it knows that of a
    Deployment's replicas alone.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.written: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str]] = []
        self.event_namespaces: list[str] = []
        self.refusals: dict[str, KubeFailed] = {}
        self.refused = 0

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
        if not dry_run:
            self.written.append(("apply", obj["kind"], manager))
        if obj["kind"] in self.refusals:
            self.refused += 1
            raise self.refusals[obj["kind"]]
        if dry_run:
            return copy.deepcopy(obj)
        key = obj["kind"], obj["metadata"]["name"]
        before = self.objects.get(key)
        made = copy.deepcopy(before or obj)
        generation = made["metadata"].get("generation", 0)
        spec = {**made.get("spec", {}), **obj.get("spec", {})}
        if before is None or spec != made.get("spec"):
            generation += 1
        if obj["kind"] == "Deployment":
            _own_replicas(made, spec, obj, manager)
        if spec:
            made["spec"] = copy.deepcopy(spec)
        if "data" in obj:
            made["data"] = copy.deepcopy(obj["data"])
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
        self.event_namespaces.append(about["metadata"].get("namespace", ""))


def _own_replicas(made: Json, spec: Json, obj: Json, manager: str) -> None:
    """A field that nobody applies any more goes, and a Deployment without it has one replica."""
    others = [it for it in made["metadata"].get("managedFields", ()) if it["manager"] != manager]
    if "replicas" in obj.get("spec", {}):
        fields = {"f:spec": {"f:replicas": {}}}
        others.append({"manager": manager, "operation": "Apply", "fieldsV1": fields})
    elif not others:
        spec.pop("replicas", None)
    made["metadata"]["managedFields"] = others
    spec.setdefault("replicas", 1)
