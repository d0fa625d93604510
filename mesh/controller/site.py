"""One namespace, led: everything that is followed there, and what each change sets going.

Reflectors fill queues, queues call `Predictors` and `Runtimes`. Nothing is worked on before all
that users wrote is known: an empty list would read as that everything is deleted. Without the API
server what was last seen stands, without the mesh what was last shown; both are tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Set
from typing import Protocol

from mesh.controller.config import Configuration, is_kept, kept_config
from mesh.controller.deployments import runtime_of
from mesh.controller.management import PREDICTOR as PREDICTORS
from mesh.controller.management import RUNTIME as RUNTIMES
from mesh.controller.management import Connected, Mesh, Unfit
from mesh.controller.names import CONFIG_MAP as CONFIG_NAME
from mesh.controller.names import KEPT_CONFIG_MAP as KEPT_NAME
from mesh.controller.pods import Installation
from mesh.controller.predictors import Predictors
from mesh.controller.queue import Refused, WorkQueue
from mesh.controller.runtimes import Runtimes
from mesh.kube.kinds import (
    CLUSTER_SERVING_RUNTIME,
    CONFIG_MAP,
    DEPLOYMENT,
    PREDICTOR,
    SERVING_RUNTIME,
)
from mesh.kube.port import Gone, Json, Kube, KubeFailed
from mesh.kube.reflector import Reflector
from mesh.ops.clock import Clock
from mesh.ops.tasks import first_of

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0


class Renewed(Protocol):
    """Keeps certificates: after how many seconds again."""

    async def keep(self) -> float: ...


class Site:
    """What leading a namespace is; `run` it. `connected` makes a connection to the mesh."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        place: Installation,
        connected: Connected,
        clock: Clock,
    ) -> None:
        self.is_connected = False
        self._kube = kube
        self._connected = connected
        self._configuration = Configuration()
        self._runtimes = Runtimes(
            kube, namespace, place, lambda: self._configuration.now, clock.wall_s
        )
        self.predictor_work = WorkQueue("predictors", self._predictor, at_once=8)
        self.runtime_work = WorkQueue("runtimes", self._runtime, at_once=2)
        follow = {
            PREDICTOR: lambda name, _: self.predictor_work.add(name),
            SERVING_RUNTIME: lambda name, _: self.runtime_work.add(name),
            CLUSTER_SERVING_RUNTIME: lambda name, _: self.runtime_work.add(name),
            DEPLOYMENT: self._deployment,
            CONFIG_MAP: self._config_map,
        }
        self._reflectors = {
            kind: Reflector(kube, kind, namespace if kind.namespaced else "", changed)
            for kind, changed in follow.items()
        }
        self._predictors = Predictors(
            kube,
            namespace,
            self._reflectors[PREDICTOR].objects,
            lambda: self._configuration.now.endpoints,
            clock.monotonic_s,
        )
        self._were_tried: set[str] = set()
        self._runtime_news = asyncio.Event()
        self._config_news = asyncio.Event()
        self._problems: tuple[str, ...] = ()
        # What the mesh was told of runtimes; None: it is to be told again.
        self._told: list[Json] | None = None

    @property
    def queues(self) -> dict[str, WorkQueue]:
        """By what they are about."""
        return {"predictors": self.predictor_work, "runtimes": self.runtime_work}

    @property
    def is_synced(self) -> bool:
        return all(it.synced.is_set() for it in self._reflectors.values())

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for reflector in self._reflectors.values():
                tasks.create_task(reflector.run())
            for reflector in self._reflectors.values():
                await reflector.synced.wait()
            if (kept := self._config_maps.get(KEPT_NAME)) is not None:
                self._configuration.recall(kept)
            tasks.create_task(self.predictor_work.run())
            tasks.create_task(self.runtime_work.run())
            tasks.create_task(self._tell_config())
            tasks.create_task(self._mesh())

    async def _predictor(self, name: str) -> float | None:
        return await self._predictors.reconcile(name)

    async def _runtime(self, name: str) -> float | None:
        try:
            due_s = await self._runtimes.reconcile(name)
        except (KubeFailed, Gone) as error:
            raise Refused(str(error)) from error
        except Exception:
            # One that we cannot cope with does not keep the others from the mesh.
            self._tried(name)
            raise
        self._tried(name)
        return due_s

    def _tried(self, name: str) -> None:
        self._were_tried.add(name)
        self._runtime_news.set()

    def _deployment(self, name: str, deployment: Json | None) -> None:
        if deployment is not None and (runtime := runtime_of(deployment)) is not None:
            self.runtime_work.add(runtime)
        elif deployment is None:
            # Somebody deleted one; which it was of is not known any more.
            self._all_runtimes()

    def _config_map(self, name: str, config_map: Json | None) -> None:
        if name == KEPT_NAME and config_map is None:
            self._config_news.set()  # it went with a ConfigMap that was made anew
        if name != CONFIG_NAME:
            return
        before = self._configuration.now
        problems = self._configuration.take(config_map)
        if problems is None:
            return
        self._problems = problems
        self._config_news.set()
        if self._configuration.now != before:
            self._all_runtimes()
            for predictor in self._reflectors[PREDICTOR].objects:
                self.predictor_work.add(predictor)

    def _all_runtimes(self) -> None:
        for name in self._runtime_names():
            self.runtime_work.add(name)

    def _runtime_names(self) -> set[str]:
        kinds = (SERVING_RUNTIME, CLUSTER_SERVING_RUNTIME)
        return {name for kind in kinds for name in self._reflectors[kind].objects}

    async def _tell_config(self) -> None:
        """What is wrong with the configuration is an event of its ConfigMap; a good one is kept."""
        said = ""
        while True:
            await self._config_news.wait()
            self._config_news.clear()
            try:
                await self._tell_problems()
                await self._keep_config()
                said = ""
            except KubeFailed as error:
                if str(error) != said:
                    log.warning("configuration not told or kept", extra={"problem": str(error)})
                said = str(error)
                await asyncio.sleep(LONGEST_PAUSE_S)
                self._config_news.set()

    async def _tell_problems(self) -> None:
        problems, config_map = self._problems, self._config_maps.get(CONFIG_NAME)
        if not problems or config_map is None:
            return
        text = "; ".join(problems) + "; the last good configuration stays in force"
        log.warning("configuration refused", extra={"problem": text})
        head = {"apiVersion": CONFIG_MAP.api_version, "kind": CONFIG_MAP.kind}
        about = {**head, **config_map}
        await self._kube.event(about, "InvalidConfiguration", text, is_warning=True)
        if self._problems == problems:
            self._problems = ()

    async def _keep_config(self) -> None:
        """For whoever leads next, and finds one that is wrong."""
        good, config_map = self._configuration.good, self._config_maps.get(CONFIG_NAME)
        if good is None or config_map is None:
            return
        kept, there = kept_config(config_map, good), self._config_maps.get(KEPT_NAME)
        if there is None or not is_kept(there, kept):
            await self._kube.apply(kept)

    @property
    def _config_maps(self) -> Mapping[str, Json]:
        return self._reflectors[CONFIG_MAP].objects

    async def _mesh(self) -> None:
        pause_s, said = FIRST_PAUSE_S, ""
        while True:
            try:
                async with self._connected() as mesh:
                    await self._with(mesh)
            except* Refused as errors:
                problem = str(first_of(errors))
                if problem != said:
                    log.warning("the mesh does not answer", extra={"problem": problem})
                said = problem
            pause_s = FIRST_PAUSE_S if self.is_connected else min(2 * pause_s, LONGEST_PAUSE_S)
            self.is_connected = False
            self._predictors.disconnected()
            self._runtimes.mesh_lost()
            await asyncio.sleep(pause_s)

    async def _with(self, mesh: Mesh) -> None:
        """While this connection lasts. Raises Refused, in a group or not."""
        self._told = None
        shown = {it.name: it.object for it in await mesh.read(PREDICTORS) if it.object}
        await self._tell_runtimes(mesh)
        self.is_connected = True
        log.info("connected to the mesh", extra={"predictors": len(shown)})
        for name in self._predictors.connected(mesh, shown):
            self.predictor_work.add(name)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_predictors(mesh, frozenset(shown)))
            tasks.create_task(self._follow_runtimes(mesh))
            tasks.create_task(self._keep_telling(mesh))

    async def _follow_predictors(self, mesh: Mesh, read: Set[str]) -> None:
        begun = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._find_gone(mesh, read, begun))
            async for name, obj in mesh.follow(PREDICTORS, begun.set):
                self._shown(name, obj)
            raise Refused("the mesh: a stream of Predictors ended")

    async def _find_gone(self, mesh: Mesh, read: Set[str], begun: asyncio.Event) -> None:
        """Those that went after all were read and before they were followed: nobody tells these."""
        await begun.wait()
        there = {it.name for it in await mesh.read(PREDICTORS)}
        for name in read - there:
            self._shown(name, None)

    def _shown(self, name: str, obj: Json | None) -> None:
        self._predictors.shown(name, obj)
        self.predictor_work.add(name)

    async def _follow_runtimes(self, mesh: Mesh) -> None:
        async for name, obj in mesh.follow(RUNTIMES):
            if obj is None:
                self._told = None
                self._runtime_news.set()
            if self._runtimes.used(name, obj):
                self.runtime_work.add(name)
        raise Refused("the mesh: a stream of runtimes ended")

    async def _keep_telling(self, mesh: Mesh) -> None:
        while True:
            await self._runtime_news.wait()
            await self._tell_runtimes(mesh)

    async def _tell_runtimes(self, mesh: Mesh) -> None:
        """All runtimes, once each was tried: a set that is not whole would forget some."""
        self._runtime_news.clear()
        if not self._runtime_names() <= self._were_tried:
            return
        runtimes = self._runtimes.for_the_mesh()
        if runtimes == self._told:
            return
        try:
            await mesh.set_runtimes(runtimes)
        except Unfit as error:
            log.warning("the mesh refuses the runtimes", extra={"problem": str(error)})
        self._told = runtimes


async def keep_renewed(certificates: Renewed, on_kept: Callable[[], None]) -> None:
    """Certificates, for ever; what is wrong is said once."""
    pause_s, said = FIRST_PAUSE_S, ""
    while True:
        try:
            wait_s = await certificates.keep()
            on_kept()
            pause_s, said = FIRST_PAUSE_S, ""
        except KubeFailed as error:
            if str(error) != said:
                log.warning("certificates not kept", extra={"problem": str(error)})
            said = str(error)
            wait_s, pause_s = pause_s, min(2 * pause_s, LONGEST_PAUSE_S)
        await asyncio.sleep(wait_s)
