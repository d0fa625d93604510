"""The models of one model server: what is loaded, what is on its way, and whose it is.

A model is loading (a Flight), loaded, being unloaded, or unknown. Loads and unloads of one model
follow one another; of each there is one at a time, however many ask. Nothing is accepted until the
server is up and what another life of the node left in it has been cleared (`settle`). What keeps
the tables true are stretches without an await; they are marked.
"""

import asyncio
import logging
from collections.abc import Iterable

from cachetools import LRUCache

from mesh.adapters.errors import (
    AdapterError,
    LoadStopped,
    ModelNotLoaded,
    ServerGone,
    UnloadFailed,
)
from mesh.adapters.flight import Flight, Tools
from mesh.adapters.folders import in_thread
from mesh.adapters.port import LoadRequest
from mesh.core.ids import ModelId
from mesh.ops.tasks import Tasks

log = logging.getLogger(__name__)

SIZES_KEPT = 10_000


class Models:
    """`server_name` is how users know the model server. Close it at the end."""

    def __init__(self, server_name: str, tools: Tools, default_size_bytes: int) -> None:
        self.is_settled = False
        self._server_name = server_name
        self._tools = tools
        self._default_size_bytes = default_size_bytes
        self._tasks = Tasks()
        self._flights: dict[ModelId, Flight] = {}
        self._loaded: dict[ModelId, int] = {}
        self._unloads: dict[ModelId, asyncio.Task[AdapterError | None]] = {}
        self._seen_sizes: LRUCache[tuple[str, ...], int] = LRUCache(SIZES_KEPT)
        self._settling = asyncio.Lock()
        self._node = tools.folders.node()
        self._losses = 0

    async def load(self, request: LoadRequest) -> int:
        """Bytes that the model takes, once it can serve; raises an AdapterError.

        When the last caller of a load is cancelled it stops; `unload` waits until it is undone.
        """
        model = request.model
        while not await self._is_new(model):
            if await self._tools.server.has(model):
                return self.size_bytes(model)
            log.warning("model has gone from the server", extra={"model": model})
            await self.unload(model)
        size_bytes = await self._flight(request).join()
        self._seen_sizes[request.key] = size_bytes
        return size_bytes

    async def unload(self, model: ModelId) -> None:
        """Returns once nothing of the model is left, in the server or on disk.

        Of an unknown model, at once. Raises UnloadFailed.
        """
        if flight := self._flights.get(model):
            flight.stop(LoadStopped(model))
            await asyncio.wait([flight.outcome])
        if model in self._loaded and model not in self._unloads:
            self._unloads[model] = self._tasks.spawn(self._unloaded(model), f"unload-{model}")
        if task := self._unloads.get(model):
            error = await asyncio.shield(task)
            if error is not None:
                raise error

    def size_bytes(self, model: ModelId) -> int:
        """Raises ModelNotLoaded."""
        if model not in self._loaded:
            raise ModelNotLoaded(model)
        return self._loaded[model]

    def predicted_bytes(self, key: tuple[str, ...]) -> int:
        """What the same files took before, else the default."""
        return self._seen_sizes.get(key, self._default_size_bytes)

    async def settle(self, node: str) -> bool:
        """Whether the server is ready for this life of a node; makes it so where it can.

        What was loaded for another life is unloaded first; an empty `node` is always another.
        """
        if self._is_settled_for(node):
            return self._tools.server.is_connected
        # A caller may go away; what was begun goes on, and the next one waits for its end.
        return await asyncio.shield(self._tasks.spawn(self._settle(node), "settle"))

    def lost(self) -> None:
        """The server has gone: forgets all that it held, and begins to delete the files.

        No await: from here on nothing is accepted and nothing counts as loaded.
        """
        self.is_settled = False
        self._losses += 1
        forgotten = [*self._loaded]
        self._loaded.clear()
        self._stop_flights()
        self._tasks.spawn(self._clear_lost(forgotten), "clear-lost")

    async def close(self) -> None:
        """Stops the loads under way and waits until they are undone; what is loaded stays."""
        self.is_settled = False
        self._stop_flights()
        await self._at_rest()
        await self._tasks.close()

    async def _is_new(self, model: ModelId) -> bool:
        """Waits while the model is on its way out; then, whether it is to be loaded.

        Raises ServerGone. No await after the last look.
        """
        while (going := self._going(model)) is not None:
            await asyncio.wait([going])
        if not self.is_settled:
            raise ServerGone(self._server_name)
        return model not in self._loaded

    def _going(
        self, model: ModelId
    ) -> asyncio.Task[int | AdapterError] | asyncio.Task[AdapterError | None] | None:
        flight = self._flights.get(model)
        return flight.outcome if flight and flight.is_stopping else self._unloads.get(model)

    def _flight(self, request: LoadRequest) -> Flight:
        """The load to join, begun if there is none. No await since `_is_new`."""
        model = request.model
        if model not in self._flights:
            flight = self._flights[model] = Flight(request, self._tools, self._tasks)
            flight.outcome.add_done_callback(lambda outcome: self._landed(model, outcome))
        return self._flights[model]

    def _landed(self, model: ModelId, outcome: asyncio.Task[int | AdapterError]) -> None:
        """Runs before whoever waits for the load wakes: it was the first to ask."""
        del self._flights[model]
        if outcome.cancelled() or outcome.exception() is not None:
            return
        ended = outcome.result()
        if isinstance(ended, AdapterError):
            log.info("load failed", extra={"model": model, "cause": ended.message})
        elif self.is_settled:
            self._loaded[model] = ended
            log.info("model loaded", extra={"model": model, "size_bytes": ended})

    async def _unloaded(self, model: ModelId) -> AdapterError | None:
        try:
            await self._let_go(model)
            self._loaded.pop(model, None)
            log.info("model unloaded", extra={"model": model})
        except UnloadFailed as error:
            return error
        finally:
            del self._unloads[model]
        return None

    async def _let_go(self, model: ModelId) -> None:
        try:
            await self._tools.server.unload(model)
        except ServerGone:
            log.info("model went with its server", extra={"model": model})
        await in_thread(self._tools.clear, model)

    def _is_settled_for(self, node: str) -> bool:
        return self.is_settled and bool(node) and node == self._node

    async def _settle(self, node: str) -> bool:
        losses = self._losses
        async with self._settling:
            if self._is_settled_for(node):
                return self._tools.server.is_connected
            if not await self._tools.server.is_ready():
                return False
            try:
                kept = await self._clear_leftovers(node)
            except (ServerGone, UnloadFailed) as error:
                log.warning("leftovers not cleared", extra={"cause": error.message})
                return False
            if losses != self._losses:
                return False
            # no await: what is kept and that it is accepted for become true together
            self._loaded.update(kept)
            self.is_settled = True
        log.info("ready for node", extra={"node": node, "kept": len(kept)})
        return True

    async def _clear_lost(self, models: list[ModelId]) -> None:
        """Before the next `settle`: it waits in line for the same lock."""
        async with self._settling:
            await self._at_rest()
            for model in models:
                await in_thread(self._tools.clear, model)

    async def _clear_leftovers(self, node: str) -> dict[ModelId, int]:
        """Unloads and deletes what this node does not know; the sizes of what it does."""
        self.is_settled = False
        self._stop_flights()
        await self._at_rest()
        tools = self._tools
        held = await tools.server.index()
        remembered = await in_thread(tools.folders.remembered)
        is_same = bool(node) and node == self._node
        kept = {model: remembered[model] for model in held & remembered.keys() if is_same}
        laid_out = await in_thread(tools.server.laid_out)
        for model in (held | laid_out | remembered.keys() | self._loaded.keys()) - kept.keys():
            await tools.server.unload(model)
            await in_thread(tools.clear, model)
        self._loaded.clear()
        await in_thread(tools.folders.clear_pulls)
        await in_thread(tools.folders.set_node, node)
        self._node = node
        return kept

    def _stop_flights(self) -> None:
        for flight in self._flights.values():
            flight.stop(ServerGone(self._server_name))

    async def _at_rest(self) -> None:
        """Waits for the end of every load and unload under way."""
        await _ended(flight.outcome for flight in self._flights.values())
        await _ended(self._unloads.values())


async def _ended(
    tasks: Iterable[asyncio.Task[int | AdapterError] | asyncio.Task[AdapterError | None]],
) -> None:
    waited = [*tasks]
    if waited:
        await asyncio.wait(waited)
