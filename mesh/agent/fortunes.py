"""What becomes of a node as the runtime beside it comes, goes and gets on: a `monitor.Listener`."""

import logging
from typing import Protocol

from mesh.agent.holdings import Holdings
from mesh.agent.signals import Signals
from mesh.agent.standing import Standing
from mesh.agent.transitions import Transitions
from mesh.core import copies as life
from mesh.core.ids import PredictorName
from mesh.core.records import NodeState
from mesh.core.view import View
from mesh.runtime.port import KeyChanged, Progress, RuntimeEvent, RuntimeInfo

log = logging.getLogger(__name__)


class Host(Protocol):
    """The engine, as far as this is concerned."""

    view: View
    signals: Signals
    holdings: Holdings
    standing: Standing

    def forgive_key(self, key: str) -> None: ...

    def tell(self, names: frozenset[PredictorName]) -> None: ...


class Fortunes:
    """Await-free, as all changes are."""

    def __init__(self, host: Host, transitions: Transitions) -> None:
        self._host = host
        self._transitions = transitions

    def runtime_ready(self, info: RuntimeInfo) -> None:
        host = self._host
        host.holdings.room.open(info)
        host.standing.set_capacity(info.capacity_bytes)
        host.standing.set_state(NodeState.READY)
        # What was given up while it was away is begun again.
        self._transitions.offer_again()
        for name in host.view.predictors:
            self._transitions.consider(name)
        host.signals.notify(tuple(host.view.predictors))

    def runtime_event(self, event: RuntimeEvent) -> None:
        match event:
            case KeyChanged(key=key):
                log.info("storage key changed", extra={"key": key})
                self._host.forgive_key(key)
            case Progress():
                self._progressed(event)

    def _progressed(self, progress: Progress) -> None:
        copy = self._host.holdings.get(progress.model)
        if copy is not None and isinstance(copy.state, life.Loading):
            copy.progress = progress
            self._host.tell(self._host.view.names(progress.model))

    def runtime_lost(self) -> None:
        self._host.holdings.room.close()
        for copy in self._host.holdings:
            copy.send(life.RuntimeLost())
        self._host.standing.set_state(NodeState.STARTING)

    def adapter_lost(self) -> None:
        self._host.holdings.room.close()
        for copy in self._host.holdings:
            copy.send(life.AdapterLost())

    def runtime_failing(self) -> None:
        """Whoever waits for the runtime is told that it does not come."""
        self._host.standing.set_state(NodeState.FAILING)
        for copy in self._host.holdings:
            if isinstance(copy.state, life.Queued):
                copy.send(life.Leave())
