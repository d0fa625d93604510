"""Predictors of one namespace: what users write goes to the mesh, what the mesh says to the status.

`reconcile(name)` is called at each change of either side. What was written is remembered, so that
nothing is written twice; the status of one Predictor is written twice a second at most, and its
last word always. The mesh is asked to delete only what carries our owner's mark.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.controller.management import Mesh, Unfit
from mesh.controller.queue import Refused
from mesh.core.ids import canonical_spec
from mesh.kube.port import Kube, KubeFailed
from mesh.wire.resources import OWNER

log = logging.getLogger(__name__)

Json = dict[str, Any]

WRITE_S, SLACK_S = 0.5, 0.01
FIELDS = (
    "available",
    "activeModelState",
    "targetModelState",
    "transitionStatus",
    "failedCopies",
    "totalCopies",
    "lastFailureInfo",
)
INVALID = "InvalidPredictorSpec"
TAKEN = "Predictor already exists with the same name from a different source"


@dataclass(frozen=True, slots=True)
class Version:
    """A spec of an object, which another one of the same name does not share."""

    uid: str
    generation: int


# Reason, message, whether it is a warning.
Event = tuple[str, str, bool]


@dataclass(slots=True)
class _Known:
    """One Predictor. `applied` and `problem` are of the spec that the mesh was told last.

    `announced` is the status of which events were made last, `untold` are those not written yet.
    """

    uid: str
    applied: Version | None = None
    problem: str = ""
    is_taken: bool = False
    status: Json | None = None
    announced: Json | None = None
    written_s: float = float("-inf")
    untold: list[Event] = field(default_factory=list)


class Predictors:
    """`wanted` are the objects of users, `endpoints` what the status says of where to call.

    `clock` gives monotonic seconds.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        wanted: Mapping[str, Json],
        endpoints: Callable[[], Json],
        clock: Callable[[], float],
    ) -> None:
        self.owner = f"kubernetes/{namespace}"
        self._kube = kube
        self._namespace = namespace
        self._wanted = wanted
        self._endpoints = endpoints
        self._clock = clock
        self._mesh: Mesh | None = None
        self._shown: dict[str, Json] = {}
        self._known: dict[str, _Known] = {}

    def connected(self, mesh: Mesh, shown: Mapping[str, Json]) -> list[str]:
        """There is a mesh, with these Predictors: all names that are to be reconciled."""
        self._mesh = mesh
        self._shown = dict(shown)
        for known in self._known.values():
            known.applied = None
        return sorted(self._shown.keys() | self._wanted.keys())

    def disconnected(self) -> None:
        """What was shown stands; nothing can be applied."""
        self._mesh = None

    def shown(self, name: str, obj: Json | None) -> None:
        """The mesh says this of a Predictor."""
        if obj is not None:
            self._shown[name] = obj
            return
        self._shown.pop(name, None)
        if name in self._known:
            self._known[name].applied = None

    async def reconcile(self, name: str) -> float | None:
        """Brings one Predictor about; when to come back. Raises Refused."""
        obj = self._wanted.get(name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            await self._remove(name)
            return None
        uid = str(obj["metadata"].get("uid", ""))
        known = self._known.get(name)
        if known is None or known.uid != uid:  # of another object of this name nothing counts
            status = obj.get("status")
            known = self._known[name] = _Known(uid, status=status, announced=status)
        if self._mesh is not None:
            await self._apply(self._mesh, obj, known)
        return await self._say(obj, known)

    async def _remove(self, name: str) -> None:
        self._known.pop(name, None)
        shown = self._shown.get(name)
        if shown is None or _owner(shown) != self.owner:
            return
        if self._mesh is None:
            return  # it is compared again once there is a mesh
        await self._mesh.delete(name, self.owner)

    async def _apply(self, mesh: Mesh, obj: Json, known: _Known) -> None:
        version = _version(obj)
        if known.applied == version:
            return
        shown = self._shown.get(obj["metadata"]["name"])
        if shown is None or _owner(shown) != self.owner or not _is_same(shown, obj):
            try:
                await mesh.apply(_sent(obj), self.owner)
            except Unfit as error:
                known.problem, known.is_taken = str(error), error.is_taken
            else:
                known.problem = ""
        else:
            known.problem = ""
        known.applied = version

    async def _say(self, obj: Json, known: _Known) -> float | None:
        """Writes the status where it is news, and before it the events of that.

        So a controller that ends between them tells some again, and none is lost.
        """
        status = self._status(obj, known)
        if status == known.status:
            status = None
        if status is not None:
            wait_s = known.written_s + WRITE_S - self._clock()
            if wait_s > SLACK_S:  # timers may come a little early
                return wait_s
            known.untold += news(known.announced or {}, status)
            known.announced = status
        untold = await self._tell(obj, known)
        if status is not None:
            await self._write(obj, known, status)
        if untold is not None:
            raise Refused(str(untold)) from untold
        return None

    async def _write(self, obj: Json, known: _Known, status: Json) -> None:
        meta = {"name": obj["metadata"]["name"], "namespace": self._namespace}
        head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": meta}
        known.written_s = self._clock()
        try:
            if await self._kube.apply_status({**head, "status": status}) is not None:
                known.status = status
        except KubeFailed as error:
            raise Refused(str(error)) from error

    async def _tell(self, obj: Json, known: _Known) -> KubeFailed | None:
        """Writes the events that were not written yet, in order, as far as that can be done."""
        while known.untold:
            reason, message, is_warning = known.untold[0]
            try:
                await self._kube.event(obj, reason, message, is_warning=is_warning)
            except KubeFailed as error:
                return error
            known.untold.pop(0)
        return None

    def _status(self, obj: Json, known: _Known) -> Json | None:
        """What the object should say of itself; None while nobody has said anything."""
        shown = self._shown.get(obj["metadata"]["name"])
        is_ours = shown is not None and _owner(shown) == self.owner
        found = (shown or {}).get("status") or {} if is_ours else {}
        status = {field: found[field] for field in FIELDS if found.get(field) not in (None, "")}
        if known.problem:
            failure = {
                "reason": INVALID,
                "message": TAKEN if known.is_taken else known.problem,
            }
            rest = {"available": False, "activeModelState": "Pending"} | status
            return rest | {"transitionStatus": "InvalidSpec", "lastFailureInfo": failure}
        return {**status, **self._endpoints()} if status else None


def news(before: Json, after: Json) -> list[Event]:
    """What `kubectl describe` is to tell of a change."""
    told: list[Event] = []
    failure = after.get("lastFailureInfo") or {}
    reason, cause = str(failure.get("reason") or ""), str(failure.get("message") or "")
    transition = after.get("transitionStatus")
    if transition != before.get("transitionStatus"):
        if transition == "BlockedByFailedLoad":
            told.append((transition, cause, True))
        elif transition == "InvalidSpec":
            told.append((reason or INVALID, cause, True))
        elif transition == "InProgress":
            told.append(("Updating", "a new model is being loaded", False))
        elif before.get("transitionStatus") in ("InProgress", "BlockedByFailedLoad"):
            told.append(("Updated", "the new model serves", False))
    state = after.get("activeModelState")
    if state != before.get("activeModelState"):
        if state == "Failed":
            told.append(("Failed", cause, True))
        elif state in ("Loading", "Loaded"):
            told.append((state, f"the model is {state.lower()}", False))
    if (
        reason == "RuntimeUnhealthy"
        and (before.get("lastFailureInfo") or {}).get("reason") != reason
    ):
        told.append((reason, cause, True))
    return told


def _version(obj: Json) -> Version:
    meta = obj["metadata"]
    return Version(str(meta.get("uid", "")), int(meta.get("generation") or 0))


def _owner(shown: Json) -> str:
    return str((shown["metadata"].get("annotations") or {}).get(OWNER, ""))


def _is_same(shown: Json, obj: Json) -> bool:
    try:
        return canonical_spec(shown["spec"]) == canonical_spec(obj["spec"])
    except (TypeError, ValueError, KeyError):
        return False


def _sent(obj: Json) -> Json:
    """What the mesh is to know of it."""
    kept: Json = {key: obj[key] for key in ("apiVersion", "kind", "spec") if key in obj}
    return {**kept, "metadata": {"name": obj["metadata"]["name"]}}
