"""The controller of one namespace: it stands for election, and works where it leads.

What leading is, is in `site`. A controller that loses its lead ends, and is started again: whoever
leads then finds everything as it is, for nothing is remembered but in the cluster and the mesh.
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
    """Where a controller works. `identity` is of this life alone; `tls` None: no certificates."""

    namespace: str
    identity: str
    installation: Installation
    tls: Path | None


class Controller:
    """`run` it; it ends by LostLead where another one may lead."""

    def __init__(self, kube: Cluster, mesh: Connections, place: Place, clock: Clock) -> None:
        self.is_leading = False
        self.leader = ""
        self._place = place
        namespace = place.namespace
        self._election = Election(kube, namespace, place.identity, clock)
        self._certificates: Callable[[Path], CertificateKeeper] = lambda folder: CertificateKeeper(
            KubeSecrets(kube, namespace), namespace, folder, clock.wall_s
        )
        self.site = Site(kube, namespace, place.installation, mesh.connected, clock)

    @property
    def why_not_ready(self) -> str:
        """In words; empty where it has seen what there is, or knows who leads."""
        if self.is_leading:
            return "" if self.site.is_synced else "the API server has not been listed yet"
        return "" if self.leader else "the API server has not answered yet"

    async def run(self) -> None:
        """Until it is cancelled. Raises LostLead, in a group."""
        await self._election.lead(self._waits)
        self.is_leading, self.leader = True, self._place.identity
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._election.keep())
                if self._place.tls is not None:
                    # Routers cannot start before there are certificates.
                    kept = asyncio.Event()
                    keeper = self._certificates(self._place.tls)
                    group.create_task(keep_renewed(keeper, kept.set))
                    await kept.wait()
                group.create_task(self.site.run())
        finally:
            self.is_leading = False
            await asyncio.shield(self._election.resign())

    def _waits(self, holder: str) -> None:
        if holder != self.leader:
            log.info("another one leads", extra={"leader": holder})
        self.leader = holder


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command is told. `management`: a gRPC target that leads to any node's internal door;
    empty: the Service of the namespace.

    `tls`: where the certificates are put that it issues; None: everything goes in the clear.
    `kubeconfig`: None in a pod. `health`, `metrics`: HOST:PORT.
    """

    namespace: str
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
    namespace, folder = settings.namespace, settings.tls
    target = settings.management or f"dns:///{INTERNAL_SERVICE}.{namespace}:{INTERNAL_PORT}"
    mesh = Connections(target, None if folder is None else NodeTls(folder))
    identity = f"{settings.name}-{secrets.token_hex(4)}"
    measures = Measures()
    async with await api_client(settings.kubeconfig) as api:
        kube = KubeClient(api, clock.wall_s, measures.called)
        place = Place(namespace, identity, settings.installation, folder)
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
    site = running.site
    measures.show("leading", "Whether this one leads", lambda: float(running.is_leading))
    measures.show("connected", "Whether the mesh answers", lambda: float(site.is_connected))
    for name, queue in site.queues.items():
        measures.show(f"{name}_waiting", f"{name} that wait for their turn", queue.depth)
