"""The life of the runtime beside us: asked until it is READY, then watched until it is lost."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from mesh.core.errors import Unavailable
from mesh.runtime.port import Runtime, RuntimeEvent, RuntimeInfo

log = logging.getLogger(__name__)

POLL_S = 0.1


class Listener(Protocol):
    """Who must know."""

    def runtime_ready(self, info: RuntimeInfo) -> None: ...

    def runtime_event(self, event: RuntimeEvent) -> None: ...

    def runtime_lost(self) -> None:
        """Everything that it held is gone."""
        ...

    def adapter_lost(self) -> None:
        """What is loaded still serves; nothing can be loaded or unloaded."""
        ...

    def runtime_failing(self) -> None:
        """It has been away for longer than `patience_s`: requests wait for it no more."""
        ...


async def monitor(
    runtime: Runtime, listener: Listener, *, patience_s: float, clock: Callable[[], float]
) -> None:
    """Runs for ever; `clock` gives monotonic seconds."""
    is_lost = True
    while True:
        info = await _until_ready(runtime, listener, patience_s, clock, is_lost=is_lost)
        log.info("runtime ready", extra={"capacity_bytes": info.capacity_bytes})
        listener.runtime_ready(info)
        async for event in runtime.events():
            listener.runtime_event(event)
        is_lost = not runtime.is_serving()
        if is_lost:
            _lose(listener)
        else:
            log.warning("adapter lost")
            listener.adapter_lost()


def _lose(listener: Listener) -> None:
    log.warning("runtime lost")
    listener.runtime_lost()


async def _until_ready(
    runtime: Runtime,
    listener: Listener,
    patience_s: float,
    clock: Callable[[], float],
    *,
    is_lost: bool,
) -> RuntimeInfo:
    """`is_lost`: its models were given up already; else that is done when it stops serving them."""
    asked_since_s = clock()
    is_failing = False
    while True:
        try:
            info = await runtime.status()
        except Unavailable:
            info = None
        if not is_lost and not runtime.is_serving():
            is_lost = True
            _lose(listener)
        if info is not None:
            return info
        if not is_failing and clock() - asked_since_s > patience_s:
            is_failing = True
            log.error("runtime does not come up", extra={"patience_s": patience_s})
            listener.runtime_failing()
        await asyncio.sleep(POLL_S)
