"""What a node asks of the runtime beside it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mesh.core.ids import ModelId, StorageKey
from mesh.core.records import BackingModel


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """What a READY runtime says of itself; 0 means that it does not say."""

    capacity_bytes: int
    max_loading: int
    load_timeout_s: float
    default_size_bytes: int
    version: str = ""
    methods: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    is_any_method_allowed: bool = False
    is_concurrency_limited: bool = False


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """What a finished load says; `max_concurrency` 0: no limit.

    `sizing_s`: how long the runtime took to say the size, where it was asked for that by itself.
    """

    size_bytes: int
    max_concurrency: int = 0
    sizing_s: float | None = None


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """A storage key was added, changed or removed: loads that failed for it may work now."""

    key: StorageKey


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a load is: `total_bytes` is 0 while it is not known."""

    model: ModelId
    stage: str
    done_bytes: int
    total_bytes: int


RuntimeEvent = KeyChanged | Progress


class Runtime(Protocol):
    """A model server behind the model runtime SPI. Every call may raise Unavailable."""

    @property
    def address(self) -> str:
        """Where it answers inference, as a gRPC target."""
        ...

    async def status(self) -> RuntimeInfo | None:
        """None while it is starting. Before READY it unloads what an earlier life left in it."""
        ...

    async def load(self, model: BackingModel, *, timeout_s: float) -> LoadedModel:
        """Returns once the model can serve; raises ModelLoadFailed. Once cancelled, unload."""
        ...

    async def unload(self, model: ModelId) -> None:
        """Returns once the memory is free; of an unknown model, at once."""
        ...

    async def predict_size_bytes(self, model: BackingModel) -> int:
        """An upper estimate, 0 where the runtime has none."""
        ...

    async def has(self, model: ModelId) -> bool:
        """Whether the model server itself says that it serves the model."""
        ...

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """What happens, until the runtime or its adapter is lost: see `is_serving`."""
        ...

    def is_serving(self) -> bool:
        """Whether what was loaded still serves, so that only the adapter is lost.

        An adapter that does not promise to keep what it loaded takes all of it along.
        """
        ...

    async def close(self) -> None: ...
