"""What an adapter needs of the three things that it joins: a model server, storage, the keys.

A model server module implements ModelServer; everything that is the same for all of them, such as
single flight, sizes and cleaning up, is in `models` and asks nothing else.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mesh.core.ids import ModelId
from mesh.core.spec import ModelType
from mesh.storage.pull import Pulled
from mesh.storage.transfer import PullRequest

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One model to load: what it is and where its files are.

    `key` identifies the same files again, whatever id they are loaded under.
    """

    model: ModelId
    type: ModelType
    files: PullRequest
    key: tuple[str, ...] = field(default=(), compare=False)


class FileSource(Protocol):
    """Where model files come from; `mesh.storage.pull.Puller` is one."""

    async def pull(
        self, request: PullRequest, target: Path, progress: Progress | None = None
    ) -> Pulled:
        """Makes `target` a folder with the files, or raises a StorageError and leaves nothing."""
        ...


class KeyChanges(Protocol):
    """`mesh.storage.keys.StorageKeys` is one."""

    def changes(self) -> AsyncIterator[str]:
        """Names of storage keys that change from now on, for ever."""
        ...


class ModelServer(Protocol):
    """A model server that loads and unloads by name. Calls raise ServerGone where it is away."""

    def lay_out(self, request: LoadRequest, pulled: Pulled, folder: Path) -> None:
        """Moves the pulled files, all below `folder`, to where the server reads them. Blocking.

        Raises InvalidModel for a type that the server cannot serve, UnusableFiles for what is wrong
        with the files themselves.
        """
        ...

    def remove(self, model: ModelId) -> None:
        """Deletes all that `lay_out` made, in whatever state it was left. Blocking."""
        ...

    def laid_out(self) -> frozenset[ModelId]:
        """The models of which there are files. Blocking."""
        ...

    async def load(self, model: ModelId) -> None:
        """Returns once the server can serve it; raises LoadFailed. Once cancelled, `unload` it."""
        ...

    async def unload(self, model: ModelId) -> None:
        """Returns once the server holds nothing of it, even where a load of it was cancelled.

        Of an unknown model, at once; raises UnloadFailed.
        """
        ...

    async def has(self, model: ModelId) -> bool:
        """Whether the server would answer for it now."""
        ...

    async def index(self) -> frozenset[ModelId]:
        """All that the server holds, models whose load has not ended included."""
        ...

    async def is_ready(self) -> bool:
        """Whether the server answers; False where it is away, it does not raise."""
        ...

    @property
    def is_connected(self) -> bool:
        """Whether the server was ready and has not gone since; asks nobody."""
        ...

    async def until_lost(self) -> None:
        """Returns each time that the server goes away after it was there."""
        ...

    async def close(self) -> None: ...
