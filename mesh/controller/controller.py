"""The controller: it stands for election, and where it leads works in its namespaces.

Which these are is in `estate`, what there is to do in each in `site`. A controller that loses its
lead ends, and is started again: whoever leads then finds everything as it is, for nothing is
remembered but in the cluster and the mesh.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mesh.controller.certificates import CertificateKeeper, KubeSecrets
from mesh.controller.doors import Doors, Measures
from mesh.controller.estate import Estate
from mesh.controller.fence import FencedKube, fenced
from mesh.controller.leader import Election, Leases
from mesh.controller.management import Connections
from mesh.controller.names import INTERNAL_PORT, INTERNAL_SERVICE
from mesh.controller.pods import Installation
from mesh.controller.site import Site, keep_renewed
from mesh.kube.client import KubeClient, api_client
from mesh.kube.port import Kube
from mesh.ops.clock import REAL_CLOCK, Clock
from mesh.peers.tls import NodeTls

log = logging.getLogger(__name__)


class Cluster(Kube, Leases, Protocol):
    """The API server, for all that a controller does with it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a controller works. Its Lease is in `home`; it works in the namespaces that it was
    `told`, or, None, in all that are labelled.

    `identity` is of this life alone; `tls` None: no certificates.
    """

    home: str
    told: frozenset[str] | None
    identity: str
    installation: Installation
    tls: Path | None


class Branch:
    """A namespace, led: its certificates, without which no router can start, and its site."""

    def __init__(self, site: Site, keeper: CertificateKeeper | None) -> None:
        self.site = site
        self._keeper = keeper

    @property
    def is_synced(self) -> bool:
        return self.site.is_synced

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            if self._keeper is not None:
                kept = asyncio.Event()
                group.create_task(keep_renewed(self._keeper, kept.set))
                await kept.wait()
            await self.site.run()


class Controller:
    """`run` it; it ends by LostLead where another one may lead. `mesh`: that of a namespace."""

    def __init__(
        self, kube: Cluster, mesh: Callable[[str], Connections], place: Place, clock: Clock
    ) -> None:
        self.is_leading = False
        self.leader = ""
        self._election = Election(kube, place.home, place.identity, clock)
        self._kube = FencedKube(kube, self._is_sure)
        self._mesh = mesh
        self._place = place
        self._clock = clock
        self.estate = Estate(self._kube, place.told, self._branch)

    @property
    def sites(self) -> dict[str, Site]:
        """By their namespaces."""
        return {name: branch.site for name, branch in self.estate.works.items()}

    @property
    def why_not_ready(self) -> str:
        """In words; empty where it has seen what there is, or knows who leads."""
        if self.is_leading:
            return self.estate.why_not_ready
        return "" if self.leader else "the API server has not answered yet"

    async def run(self) -> None:
        """Until it is cancelled. Raises LostLead, in a group."""
        await self._election.lead(self._waits)
        self.is_leading, self.leader = True, self._place.identity
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._election.keep())
                group.create_task(self.estate.run())
        finally:
            self.is_leading = False
            await asyncio.shield(self._election.resign())

    def _branch(self, namespace: str) -> Branch:
        kube, clock, folder = self._kube, self._clock, self._place.tls
        connected = fenced(self._mesh(namespace).connected, self._is_sure)
        site = Site(kube, namespace, self._place.installation, connected, clock)
        if folder is None:
            return Branch(site, None)
        secrets = KubeSecrets(kube, namespace)
        return Branch(site, CertificateKeeper(secrets, namespace, folder / namespace, clock.wall_s))

    def _is_sure(self) -> bool:
        return self._election.is_sure

    def _waits(self, holder: str) -> None:
        if holder != self.leader:
            log.info("another one leads", extra={"leader": holder})
        self.leader = holder


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command is told. `management`: a gRPC target that leads to any node's internal door;
    empty: the Service of each namespace. `home`, `told`: see `Place`.

    `tls`: where the certificates are put that it issues; None: everything goes in the clear.
    `kubeconfig`: None in a pod. `health`, `metrics`: HOST:PORT.
    """

    home: str
    told: frozenset[str] | None
    name: str
    installation: Installation
    management: str
    tls: Path | None
    kubeconfig: Path | None
    health: str
    metrics: str


async def controller(settings: Settings, clock: Clock = REAL_CLOCK) -> None:
    """A controller with its doors, until it is cancelled.

    Raises NoCluster, OSError where a door cannot be opened, and LostLead, in a group.
    """
    folder = settings.tls

    def mesh(namespace: str) -> Connections:
        target = settings.management or f"dns:///{INTERNAL_SERVICE}.{namespace}:{INTERNAL_PORT}"
        return Connections(target, None if folder is None else NodeTls(folder / namespace))

    identity = f"{settings.name}-{secrets.token_hex(4)}"
    measures = Measures()
    async with await api_client(settings.kubeconfig) as api:
        kube = KubeClient(api, clock.wall_s, measures.called)
        place = Place(settings.home, settings.told, identity, settings.installation, folder)
        running = Controller(kube, mesh, place, clock)
        show(running, measures)
        doors = Doors(measures, lambda: running.why_not_ready)
        try:
            await doors.open(settings.health, settings.metrics)
            await running.run()
        finally:
            await doors.close()


def show(running: Controller, measures: Measures) -> None:
    """Has the metrics tell of a controller; docs/kubernetes.md names them."""
    measures.show("leading", "Whether this one leads", lambda: float(running.is_leading))

    def each(name: str, meaning: str, value: Callable[[Site], float]) -> None:
        measures.show_each(
            name, meaning, lambda: {at: value(site) for at, site in running.sites.items()}
        )

    each("connected", "Whether the mesh answers", lambda site: float(site.is_connected))
    for name in ("predictors", "runtimes"):
        each(f"{name}_waiting", f"{name} that wait for their turn", _depth(name))


def _depth(queue: str) -> Callable[[Site], float]:
    return lambda site: site.queues[queue].depth()
