"""Runtimes of one namespace: their workloads, their scale, their status, and what the mesh is told.

Whoever calls says when: `reconcile(name)` at each change of a ServingRuntime, of its Deployment, of
its use in the mesh or of the configuration, and after the time that the last call returned. There
is one call at a time for a name. Nothing is written where nothing has changed, but all of it again
after some minutes, in case that somebody else has changed it.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mesh.controller.config import Config
from mesh.controller.deployments import generation, is_scaled_by_us, replicas
from mesh.controller.names import CONTROLLER, workload_name
from mesh.controller.pods import RUNTIME_FILE, Installation
from mesh.controller.runtime_status import (
    Condition,
    Health,
    Problems,
    availability,
    health,
    status_object,
    status_of,
    validity,
)
from mesh.controller.scaling import Level, ScalingState, Usage, due_s, step
from mesh.controller.validation import runtime_problems
from mesh.controller.workloads import Owner, Runtime, scaling_of, workloads
from mesh.kube.kinds import (
    AUTOSCALER,
    BUDGET,
    CLUSTER_SERVING_RUNTIME,
    CONFIG_MAP,
    DEPLOYMENT,
    SERVING_RUNTIME,
)
from mesh.kube.port import REFUSALS, Kube, KubeFailed
from mesh.wire.documents import InvalidManifest
from mesh.wire.runtime_manifest import ServingRuntimeManifest, parse_runtime

log = logging.getLogger(__name__)

# Its own field manager for the first replicas of a Deployment that an autoscaler then has.
SCALE_MANAGER = f"{CONTROLLER}-scale"
RESYNC_S = 600.0
OWNED = (AUTOSCALER, BUDGET, DEPLOYMENT, CONFIG_MAP)
# What refused it may have been a policy, which somebody changes. Not sooner: its words may differ
# each time, and each status that is written is a change that calls for the next reconciliation.
REFUSED_AGAIN_S = 30.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Refused:
    """What Kubernetes said to these objects, which it is not asked again until then."""

    digest: str
    problems: Problems
    again_s: float


@dataclass(slots=True)
class _Known:
    """A runtime as it was at its last reconciliation; `applied` is by kind."""

    state: ScalingState
    applied: dict[str, str] = field(default_factory=dict)
    deployment_generation: int = -1
    compared_s: float = 0.0
    told: Json | None = None
    health: Health = Health.ZERO
    health_since_s: float = 0.0
    problems: Problems | None = None
    refused: _Refused | None = None
    available: Condition | None = None


class Runtimes:
    """`config` is asked at each call; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        place: Installation,
        config: Callable[[], Config],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._place = place
        self._config = config
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._usages: dict[str, Usage] = {}

    def used(self, name: str, record: Json | None) -> bool:
        """Takes what the mesh says of a runtime (None: it forgot it); whether it is news."""
        before = self._usages.get(name)
        if record is None:
            self._usages.pop(name, None)
        else:
            self._usages[name] = usage_of(record)
        return self._usages.get(name) != before

    def mesh_lost(self) -> None:
        """Nobody says how runtimes are used: from now on all stay as they are."""
        self._usages.clear()

    def for_the_mesh(self) -> list[Json]:
        """Every runtime that can serve, with its state; only whole once all were reconciled."""
        told = (self._known[name].told for name in sorted(self._known))
        return [item for item in told if item is not None]

    async def reconcile(self, name: str) -> float | None:
        """Brings one runtime about; after how many seconds time alone changes something."""
        obj = await self._object(name)
        if obj is None:
            await self._forget(name)
            return None
        if (obj.get("spec") or {}).get("disabled"):
            await self._disable(name, obj)
            return None
        try:
            runtime = self._valid(obj)
        except InvalidManifest as error:
            await self._refuse(name, obj, error.problems)
            return None
        return await self._bring_about(name, obj, runtime)

    async def _object(self, name: str) -> Json | None:
        """The ServingRuntime of the namespace, which covers one of the cluster."""
        own = await self._kube.get(SERVING_RUNTIME, self._namespace, name)
        if own is not None:
            return own
        return await self._kube.get(CLUSTER_SERVING_RUNTIME, "", name)

    def _valid(self, obj: Json) -> Runtime:
        manifest = parse_runtime({**obj, "kind": SERVING_RUNTIME.kind})
        problems = runtime_problems(manifest)
        if problems:
            raise InvalidManifest(problems)
        meta = obj["metadata"]
        owner = Owner(obj["apiVersion"], obj["kind"], meta["name"], meta.get("uid", ""))
        return Runtime(manifest, self._namespace, owner)

    async def _disable(self, name: str, obj: Json) -> None:
        known = self._known.get(name)
        if known is None or known.health is not Health.DISABLED:
            await self._remove_workloads(name)
            known = self._known[name] = _new(self._clock())
            known.health = Health.DISABLED
        await self._say(obj, known)

    async def _refuse(self, name: str, obj: Json, problems: tuple[str, ...]) -> None:
        """What ran before goes on, and is what the mesh is told."""
        deployment = await self._kube.get(DEPLOYMENT, self._namespace, workload_name(name))
        known = self._at(name, deployment)
        await self._tell_problems(obj, known, Problems("InvalidSpec", "; ".join(problems)))
        last = await self._last_applied(name)
        self._stands(known, last, deployment)
        await self._say(obj, known)

    async def _bring_about(self, name: str, obj: Json, runtime: Runtime) -> float | None:
        config, now_s = self._config(), self._clock()
        deployment = await self._kube.get(DEPLOYMENT, self._namespace, runtime.name)
        known = self._at(name, deployment)
        usage, was_up = self._usages.get(name), known.state.is_up
        policy = config.scale_to_zero
        if usage is not None or not policy.enabled:
            known.state = step(known.state, usage or Usage(1), policy, now_s)
        items = workloads(runtime, config, self._place, is_up=known.state.is_up)
        deployment = await self._attempt(known, runtime, items, deployment)
        refusal = None if known.refused is None else known.refused.problems
        if known.state.is_up != was_up:
            await self._tell_scale(obj, known.state)
        await self._tell_problems(obj, known, refusal)
        manifest = runtime.manifest if refusal is None else await self._last_applied(name)
        self._stands(known, manifest, deployment)
        await self._say(obj, known)
        due = None if usage is None else due_s(known.state, usage, policy)
        longest_s = RESYNC_S if refusal is None else REFUSED_AGAIN_S
        return min(longest_s, longest_s if due is None else max(0.0, due - now_s))

    def _at(self, name: str, deployment: Json | None) -> _Known:
        """What is known of a runtime; where nothing is, as a controller finds it that has begun."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = _found(deployment, self._clock())
        return known

    def _stands(
        self, known: _Known, manifest: ServingRuntimeManifest | None, deployment: Json | None
    ) -> None:
        """Takes how its pods are; the mesh is told so of `manifest`, where there is one."""
        found = health(deployment, is_up=known.state.is_up)
        if found is not known.health:
            known.health, known.health_since_s = found, self._clock()
        known.available = availability(deployment, found)
        if manifest is None:
            known.told = None
        else:
            known.told = status_object(manifest, known.health, known.health_since_s)

    async def _last_applied(self, name: str) -> ServingRuntimeManifest | None:
        """The runtime that its pods run, from the file that they read."""
        file = await self._kube.get(CONFIG_MAP, self._namespace, workload_name(name))
        if file is None:
            return None
        try:
            return parse_runtime(json.loads(file["data"][RUNTIME_FILE]))
        except (KeyError, ValueError, InvalidManifest):
            return None  # by another version of ours, or changed by somebody

    async def _tell_problems(self, obj: Json, known: _Known, problems: Problems | None) -> None:
        if problems is not None and known.problems != problems:
            reason = "InvalidServingRuntime" if problems.reason == "InvalidSpec" else "Refused"
            await self._event(obj, reason, problems.text, is_warning=True)
            fields = {"runtime": obj["metadata"]["name"], "problem": problems.text}
            log.warning("runtime not brought about", extra=fields)
        known.problems = problems

    async def _attempt(
        self, known: _Known, runtime: Runtime, items: list[Json], deployment: Json | None
    ) -> Json | None:
        """Applies a runtime's objects, unless they were refused just now; the Deployment then."""
        digest, now_s, before = _digest(items), self._clock(), known.refused
        if before is not None and before.digest == digest and now_s < before.again_s:
            return deployment
        known.refused = None
        try:
            return await self._apply(known, runtime, items, deployment)
        except KubeFailed as error:
            if error.status not in REFUSALS:
                raise
            problems = Problems("Refused", error.message)
            known.refused = _Refused(digest, problems, now_s + REFUSED_AGAIN_S)
            return deployment

    async def _apply(
        self, known: _Known, runtime: Runtime, items: list[Json], deployment: Json | None
    ) -> Json | None:
        """Applies what differs from what was applied last; the Deployment as it is then."""
        is_up, scaling, now_s = known.state.is_up, scaling_of(runtime), self._clock()
        if now_s >= known.compared_s + RESYNC_S:
            known.applied.clear()
            known.compared_s = now_s
        if deployment is None or generation(deployment) != known.deployment_generation:
            known.applied.pop(DEPLOYMENT.kind, None)
        if scaling is None or not is_up:
            await self._drop_autoscaler(known, runtime.name)
        elif deployment is not None:
            # Those that we had asked for ourselves would go with our field.
            count = max(scaling.least, replicas(deployment))
            if count > replicas(deployment) or is_scaled_by_us(deployment):
                deployment = await self._scale(runtime.name, count)
        news = {item["kind"]: item for item in items if _is_new(item, known)}
        if deployment is not None and {CONFIG_MAP.kind, DEPLOYMENT.kind} <= news.keys():
            # Refused, it must not leave its file to the pods of before.
            await self._kube.apply(news[DEPLOYMENT.kind], dry_run=True)
        for kind, item in news.items():
            applied = await self._kube.apply(item)
            known.applied[kind] = _digest(item)
            if kind == DEPLOYMENT.kind:
                deployment = applied
        if scaling is not None and is_up and replicas(deployment) < scaling.least:
            deployment = await self._scale(runtime.name, scaling.least)
        known.deployment_generation = generation(deployment)
        return deployment

    async def _scale(self, name: str, count: int) -> Json:
        """Sets the replicas of which an autoscaler then takes care: it does nothing at zero."""
        meta = {"name": name, "namespace": self._namespace}
        wanted = {"metadata": meta, "spec": {"replicas": count}}
        head = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind}
        return await self._kube.apply({**head, **wanted}, manager=SCALE_MANAGER)

    async def _drop_autoscaler(self, known: _Known, name: str) -> None:
        if known.applied.get(AUTOSCALER.kind) != "":
            await self._kube.delete(AUTOSCALER, self._namespace, name)
            known.applied[AUTOSCALER.kind] = ""

    async def _tell_scale(self, obj: Json, state: ScalingState) -> None:
        match state.level:
            case Level.UP:
                await self._event(obj, "Started", "Predictors use it: its pods are started")
            case Level.UNUSED:
                await self._event(obj, "ScaledToZero", "no Predictor uses it: its pods end")
            case Level.IDLE:
                text = "nobody has used its models for the idle time: its pods end"
                await self._event(obj, "ScaledToZero", text)

    async def _event(self, obj: Json, reason: str, text: str, *, is_warning: bool = False) -> None:
        """About a runtime where it stands: one of the cluster has no namespace of its own."""
        about = {**obj, "metadata": {**obj["metadata"], "namespace": self._namespace}}
        await self._kube.event(about, reason, text, is_warning=is_warning)

    async def _say(self, obj: Json, known: _Known) -> None:
        """Writes the status where it differs from what the object has."""
        meta, before = obj["metadata"], obj.get("status") or {}
        available = known.available or availability(None, known.health)
        conditions = (validity(known.problems), available)
        generation = meta.get("generation")
        status = status_of(before, known.health, generation, conditions, self._clock())
        # A runtime of the cluster has no status: it stands differently in each namespace.
        if status == before or obj["kind"] != SERVING_RUNTIME.kind:
            return
        head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
        named = {"name": meta["name"], "namespace": self._namespace}
        await self._kube.apply_status({**head, "metadata": named, "status": status})

    async def _forget(self, name: str) -> None:
        await self._remove_workloads(name)
        self._known.pop(name, None)

    async def _remove_workloads(self, name: str) -> None:
        for kind in OWNED:
            await self._kube.delete(kind, self._namespace, workload_name(name))


def usage_of(record: Json) -> Usage:
    """What the mesh says of a runtime's use."""
    status = record.get("status") or {}
    return Usage(
        int(status.get("predictors") or 0),
        _moment(status.get("wanted")),
        _moment(status.get("lastUse")),
    )


def _new(now_s: float) -> _Known:
    return _Known(ScalingState(Level.UNUSED, now_s), health_since_s=now_s)


def _found(deployment: Json | None, now_s: float) -> _Known:
    """As a controller finds it that has just begun."""
    is_up = deployment is not None and replicas(deployment) > 0
    found = health(deployment, is_up=is_up)
    level = Level.UP if is_up else Level.UNUSED
    return _Known(ScalingState(level, now_s), health=found, health_since_s=now_s)


def _is_new(item: Json, known: _Known) -> bool:
    return known.applied.get(item["kind"]) != _digest(item)


def _digest(item: Json | list[Json]) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()


def _moment(text: Any) -> float | None:
    return datetime.fromisoformat(str(text)).timestamp() if text else None
