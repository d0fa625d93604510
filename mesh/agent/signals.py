"""Wake-ups by name: a resolution waits until something about its Predictor changed.

Decide and then wait without an await in between, and no change is missed. What is kept is bounded
by those who wait: each future goes when its waiter does.
"""

import asyncio
from collections.abc import Iterable

from mesh.core.ids import ModelId


def model_signal(model: ModelId) -> str:
    """What is notified when the copy of a model on this node moved; no Predictor has this name."""
    return f"/model/{model}"


class Signals:
    """Who waits for which name. They are woken name by name, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {}

    async def wait(self, name: str) -> None:
        """Returns at the next notify of this name."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, {})[future] = None
        try:
            await future
        finally:
            waiting = self._waiting.get(name)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._waiting[name]

    def notify(self, names: Iterable[str]) -> None:
        """Wakes all who wait for one of the names."""
        for name in names:
            for future in self._waiting.pop(name, ()):
                if not future.done():
                    future.set_result(None)
