"""One controller leads: whoever holds the Lease. A lead that cannot be renewed is given up in time.

The rule is that of Kubernetes' own controllers: a lease is over when it has not changed for its
duration by our own clock, whatever times stand in it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from mesh.controller.names import CONTROLLER
from mesh.kube.kinds import LEASE
from mesh.kube.port import Json, Kind, KubeFailed
from mesh.ops.clock import Clock

log = logging.getLogger(__name__)

DURATION_S = 15
RENEW_S = 3.0
GIVE_UP_S = 10.0
CONFLICT = 409


class LostLead(Exception):
    """Somebody else may lead by now: end at once."""


class Leases(Protocol):
    """What an election takes; `create` and `replace` raise KubeFailed with 409 in a race."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None: ...

    async def create(self, obj: Json) -> Json: ...

    async def replace(self, obj: Json) -> Json: ...


class Election:
    """`identity` is one of this life alone."""

    def __init__(
        self, leases: Leases, namespace: str, identity: str, clock: Clock, name: str = CONTROLLER
    ) -> None:
        self._leases = leases
        self._namespace = namespace
        self._identity = identity
        self._clock = clock
        self._name = name
        self._lease: Json | None = None
        # When what renewed it was sent: others see it later than that.
        self._renewed_s = float("-inf")
        self._seen: tuple[str, float] = ("", 0.0)

    @property
    def is_sure(self) -> bool:
        """Whether we lead for certain: nobody else can have begun to."""
        return self._age_s() < GIVE_UP_S

    async def lead(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Returns once we lead; `on_wait` is told who does until then."""
        while not await self._try(on_wait):  # noqa: ASYNC110 - the Lease is elsewhere
            await asyncio.sleep(RENEW_S)
        log.info("leading", extra={"identity": self._identity})

    async def keep(self) -> None:
        """Renews the lead, for ever. Raises LostLead."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                # One that was frozen asks as well: its lead may still be there.
                async with asyncio.timeout(max(GIVE_UP_S - self._age_s(), RENEW_S)):
                    assert self._lease is not None  # noqa: S101 - we lead
                    await self._hold(self._leases.replace, self._lease)
            except TimeoutError as error:
                raise LostLead("no answer to its renewal") from error
            except KubeFailed as error:
                if error.status == CONFLICT or not self.is_sure:
                    raise LostLead(str(error)) from error
                log.warning("lead not renewed", extra={"problem": str(error)})

    async def resign(self) -> None:
        """Lets another one lead at once."""
        if self._lease is None:
            return
        self._renewed_s = float("-inf")
        try:
            async with asyncio.timeout(RENEW_S):
                await self._give_back()
        except (KubeFailed, TimeoutError) as error:
            log.info("lease not given back", extra={"problem": str(error)})

    async def _give_back(self) -> None:
        # It is read again, as the answer to the last renewal may not have been heard.
        found = await self._leases.get(LEASE, self._namespace, self._name)
        if found is None or found["spec"].get("holderIdentity") != self._identity:
            return
        spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        await self._leases.replace({**found, "spec": spec})

    async def _hold(self, write: Callable[[Json], Awaitable[Json]], lease: Json) -> None:
        sent_s = self._clock.monotonic_s()
        self._lease = await write(self._renewed(lease))
        self._renewed_s = sent_s

    async def _try(self, on_wait: Callable[[str], None]) -> bool:
        try:
            found = await self._leases.get(LEASE, self._namespace, self._name)
            if found is None:
                await self._hold(self._leases.create, self._new())
                return True
            holder = str(found["spec"].get("holderIdentity") or "")
            if holder not in ("", self._identity) and not self._is_over(found):
                on_wait(holder)
                return False
            await self._hold(self._leases.replace, found)
        except KubeFailed as error:
            if error.status != CONFLICT:
                log.warning("cannot stand for election", extra={"problem": str(error)})
            return False
        return True

    def _age_s(self) -> float:
        return self._clock.monotonic_s() - self._renewed_s

    def _is_over(self, lease: Json) -> bool:
        version = str(lease["metadata"]["resourceVersion"])
        now = self._clock.monotonic_s()
        if self._seen[0] != version:
            self._seen = (version, now)
        duration_s = float(lease["spec"].get("leaseDurationSeconds") or DURATION_S)
        return now - self._seen[1] > duration_s

    def _new(self) -> Json:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {},
        }

    def _renewed(self, lease: Json) -> Json:
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            **lease["spec"],
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": now,
        }
        if lease["spec"].get("holderIdentity") != self._identity:
            turns = int(lease["spec"].get("leaseTransitions") or 0)
            spec |= {"acquireTime": now, "leaseTransitions": turns + 1}
        head = {"apiVersion": LEASE.api_version, "kind": LEASE.kind}
        return {**head, **lease, "spec": spec}
