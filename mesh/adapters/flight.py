"""One load, from its place in the queue to the model server's word, and back if it fails.

Two tasks: `work` loads and may be cancelled at any await; `outcome` waits for it, undoes what was
begun and only then says how it ended. Nobody cancels `outcome`: whoever waits for it shields it, so
that a load that has ended, in whatever way, has left nothing half done.
"""

import asyncio
import logging
import math
from dataclasses import dataclass

from mesh.adapters.errors import (
    AdapterError,
    LoadFailed,
    LoadStopped,
    LoadTimedOut,
    ServerGone,
    UnloadFailed,
    UnusableFiles,
)
from mesh.adapters.events import LOADING, PULLING, Events
from mesh.adapters.folders import Folders, in_thread
from mesh.adapters.model_key import is_safe_id
from mesh.adapters.port import FileSource, LoadRequest, ModelServer
from mesh.core.ids import ModelId
from mesh.ops.logs import bound
from mesh.ops.tasks import Tasks
from mesh.storage.port import StorageError

log = logging.getLogger(__name__)

WAITING = "waiting for other loads"


@dataclass(frozen=True, slots=True)
class Tools:
    """What a load works with, the same for all of them. `slots` bounds the loads at once."""

    server: ModelServer
    source: FileSource
    folders: Folders
    events: Events
    slots: asyncio.Semaphore
    limit_s: float
    size_multiplier: float

    def clear(self, model: ModelId) -> None:
        """Deletes all files of a model that the server does not hold any more. Blocking.

        A model server may name what it holds as it likes: an unsafe name is none of our files.
        """
        if not is_safe_id(model):
            return
        self.folders.forget(model)
        self.server.remove(model)
        self.folders.clear_pull(model)


class Flight:
    """A load that several callers may wait for; it stops when the last of them has gone."""

    def __init__(self, request: LoadRequest, tools: Tools, tasks: Tasks) -> None:
        self.model = request.model
        self.is_stopping = False
        self._request = request
        self._tools = tools
        self._stage = WAITING
        self._waiting = 0
        self._has_slot = False
        self._was_sent = False
        self._stopped_by: AdapterError = LoadStopped(request.model)
        with bound(model=request.model):
            self._work: asyncio.Task[int | AdapterError] = tasks.spawn(
                self._in_turn(), f"load-{request.model}"
            )
            self.outcome: asyncio.Task[int | AdapterError] = tasks.spawn(
                self._outcome(), f"loaded-{request.model}"
            )

    async def join(self) -> int:
        """The size in bytes; raises the AdapterError by which the load ended."""
        self._waiting += 1
        try:
            ended = await asyncio.shield(self.outcome)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self.stop(LoadStopped(self.model))
        if isinstance(ended, AdapterError):
            raise ended
        return ended

    def stop(self, why: AdapterError) -> None:
        """Begins to stop it, if it is still going on; `outcome` says when that is done."""
        if not self._work.done():
            self.is_stopping = True
            self._stopped_by = why
            self._work.cancel()

    async def _outcome(self) -> int | AdapterError:
        await asyncio.wait([self._work])
        ended = self._ended()
        try:
            if isinstance(ended, AdapterError):
                await self._undo()
            return ended
        finally:
            if self._has_slot:
                self._tools.slots.release()
            self._tools.events.load_ended(self.model)

    def _ended(self) -> int | AdapterError:
        if self._work.cancelled():
            return self._stopped_by
        if self._work.exception() is not None:  # a bug of ours, logged where tasks are
            return LoadFailed("the adapter", "internal error, see its log")
        return self._work.result()

    async def _in_turn(self) -> int | AdapterError:
        await self._tools.slots.acquire()
        self._has_slot = True
        try:
            async with asyncio.timeout(self._tools.limit_s):
                return await self._load()
        except TimeoutError:
            return LoadTimedOut(self._tools.limit_s, self._stage)
        except StorageError as error:
            return UnusableFiles(error.reason)
        except OSError as error:
            return UnusableFiles(f"the adapter's disk: {error.strerror}")
        except AdapterError as error:
            return error

    async def _load(self) -> int:
        tools = self._tools
        self._enter(PULLING, 0)
        target = tools.folders.pull_target(self.model)
        pulled = await tools.source.pull(self._request.files, target, self._pulled_bytes)
        await in_thread(tools.server.lay_out, self._request, pulled, target)
        await in_thread(tools.folders.clear_pull, self.model)
        self._enter(LOADING, pulled.size_bytes)
        self._was_sent = True
        await tools.server.load(self.model)
        size_bytes = max(1, math.ceil(pulled.size_bytes * tools.size_multiplier))
        await in_thread(tools.folders.remember, self.model, size_bytes)
        return size_bytes

    async def _undo(self) -> None:
        """Returns once the server holds nothing of it and its files are gone."""
        if self._was_sent:
            try:
                await self._tools.server.unload(self.model)
            except ServerGone:
                pass
            except UnloadFailed as error:
                log.error("failed load was not undone", extra={"cause": error.message})  # noqa: TRY400
        await in_thread(self._tools.clear, self.model)

    def _enter(self, stage: str, total_bytes: int) -> None:
        self._stage = stage
        self._tools.events.progress(self.model, stage, 0, total_bytes)

    def _pulled_bytes(self, done_bytes: int, total_bytes: int) -> None:
        if self._stage == PULLING and not self._work.done():
            self._tools.events.progress(self.model, PULLING, done_bytes, total_bytes)
