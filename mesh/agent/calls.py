"""How calls go to the runtime beside this node: which methods, with the model's id where, and how
many at a time. A runtime says so itself, in `runtimeStatus` (contract: mmesh.ModelRuntime).
"""

import asyncio
from collections.abc import AsyncIterator, Set
from contextlib import asynccontextmanager
from typing import TypeAlias

from mesh.core.errors import DeadlineExceeded, MethodNotServed, Overloaded
from mesh.core.ids import ModelId
from mesh.runtime.port import RuntimeInfo
from mesh.wire.dataplane import KSERVE
from mesh.wire.field_path import replace_string

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

# In messages of these the router has put the id at field 1 already.
KSERVE_METHODS = tuple(
    f"{KSERVE}{name}" for name in ("ModelInfer", "ModelMetadata", "ModelStreamInfer")
)
ID_HEADER = "mm-model-id"
OTHER = "other"
# As in ModelMesh: beyond this, requests are refused rather than queued.
LEAST_QUEUE, QUEUE_A_SLOT = 16, 8


class Calls:
    """The methods of one runtime. Without any `methodInfos` it serves those of KServe alone.

    `plain`: the methods whose messages and metadata go as they are.
    """

    def __init__(self, info: RuntimeInfo | None = None) -> None:
        infos = {} if info is None else info.methods
        self._paths = {f"/{name.lstrip('/')}": path for name, path in infos.items()}
        self._is_any_allowed = info is not None and info.is_any_method_allowed
        self.plain: Set[str] = frozenset(filter(self._is_plain, KSERVE_METHODS))
        known = (*KSERVE_METHODS, *self._paths)
        self._labels = {method: method.rpartition("/")[2] for method in known}

    def prepared(
        self, method: str, message: bytes, metadata: Metadata, model: ModelId
    ) -> tuple[bytes, Metadata]:
        """The message with the model's id where the runtime wants it, and its metadata.

        Raises MethodNotServed, or InvalidRequest for a message that cannot be read.
        """
        path = self._paths.get(method, ())
        if method not in self._paths and not self._is_any_allowed:
            raise MethodNotServed(method.lstrip("/"), model=model)
        is_named = method in KSERVE_METHODS and path in ((), (1,))
        if path and not is_named:
            message = replace_string(message, path, model)
        return message, (*metadata, (ID_HEADER, model))

    def label(self, method: str) -> str:
        """For metrics: clients must not be able to make as many of them as they like."""
        return self._labels.get(method, OTHER)

    def _is_plain(self, method: str) -> bool:
        return not self._paths or self._paths.get(method) == (1,)


# Of a runtime that has not said anything, or of another node, where it is not asked.
UNTOLD = Calls()


class CopyBusy(Overloaded):
    """As many wait for one copy of a model as may; another copy may have room."""


class Gate:
    """Lets `most` calls to one copy through at a time, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self._limit = max(LEAST_QUEUE, QUEUE_A_SLOT * most)
        self._free = asyncio.Semaphore(most)
        self._inside = 0

    async def enter(self, model: ModelId, timeout_s: float | None) -> None:
        """Returns when it is the caller's turn, who must leave. Raises CopyBusy, and
        DeadlineExceeded after `timeout_s`.
        """
        if self._inside >= self._limit:
            raise CopyBusy("requests wait for the runtime of this model", self._limit)
        self._inside += 1
        try:
            await self._wait(model, timeout_s)
        except BaseException:
            self._inside -= 1
            raise

    def leave(self) -> None:
        """The call ended."""
        self._inside -= 1
        self._free.release()

    @asynccontextmanager
    async def turn(self, model: ModelId, timeout_s: float | None) -> AsyncIterator[float | None]:
        """Entered for as long as the context lasts; what is left of `timeout_s` then."""
        clock = asyncio.get_running_loop().time
        until_s = None if timeout_s is None else clock() + timeout_s
        await self.enter(model, timeout_s)
        try:
            yield None if until_s is None else max(0.0, until_s - clock())
        finally:
            self.leave()

    async def _wait(self, model: ModelId, timeout_s: float | None) -> None:
        clock = asyncio.get_running_loop().time
        began_s = clock()
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise DeadlineExceeded(model, clock() - began_s, "still busy") from None
