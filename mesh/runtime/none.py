"""The runtime of a node that has none: always there, and never asked to hold anything."""

import asyncio
from collections.abc import AsyncIterator

from mesh.core.errors import Unavailable
from mesh.core.ids import ModelId
from mesh.core.records import BackingModel
from mesh.runtime.port import LoadedModel, RuntimeEvent, RuntimeInfo


class NoRuntime:
    """Placement never chooses a node without a runtime, so that loads cannot come here."""

    address = ""

    async def status(self) -> RuntimeInfo | None:
        return RuntimeInfo(0, 0, 0.0, 0)

    async def load(self, model: BackingModel, *, timeout_s: float) -> LoadedModel:
        raise Unavailable("this node has no runtime")

    async def unload(self, model: ModelId) -> None:
        pass

    async def predict_size_bytes(self, model: BackingModel) -> int:
        return 0

    async def has(self, model: ModelId) -> bool:
        return False

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        await asyncio.Event().wait()
        yield  # type: ignore[misc] # never: it makes this a generator

    def is_serving(self) -> bool:
        return True

    async def close(self) -> None:
        pass
