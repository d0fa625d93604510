"""The records of the store:
what is written, by whom, is in docs/architecture.md; how, in `wire.records`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName, spec_path
from mesh.core.spec import ModelSource, ModelType


class CopyState(StrEnum):
    """What a copy is. A copy that does not exist has no record."""

    LOADING = "Loading"
    LOADED = "Loaded"
    UNLOADING = "Unloading"
    FAILED = "Failed"


class NodeState(StrEnum):
    """STARTING: its runtime is coming up. FAILING: it has been away for too long to wait for it.

    DRAINING: the node takes nothing new.
    """

    STARTING = "Starting"
    READY = "Ready"
    FAILING = "Failing"
    DRAINING = "Draining"


class RuntimeState(StrEnum):
    """ZERO: it has no pod, and none is to be. STARTING: none of its pods is ready yet."""

    ZERO = "Zero"
    STARTING = "Starting"
    RUNNING = "Running"


@dataclass(frozen=True, slots=True)
class Predictor:
    """A stable name.

    `served` says that the active model was Loaded once, so that it may not be given up. Counts of
    copies: 0 where its owner does not say.
    """

    name: PredictorName
    spec: str
    active: ModelId
    target: ModelId
    served: bool
    created_s: float
    generation: int
    owner: str = ""
    min_copies: int = 0
    max_copies: int = 0


@dataclass(frozen=True, slots=True)
class BackingModel:
    """One immutable model; `predictor`, and those in `also`, refer to it.

    `predictor` is empty where nobody does. With `auto_delete` the model goes then; without, it
    stays until it is unregistered. Who refers is changed by `core.references` alone.

    There are very many models, which mostly differ in their paths alone: `common_source` is the
    source without its path where the spec says that, and may be one object for all of them.
    """

    id: ModelId
    predictor: PredictorName
    spec: str
    common_source: ModelSource
    auto_delete: bool = True
    also: tuple[PredictorName, ...] = ()

    def __post_init__(self) -> None:
        path = self.common_source.path
        if path and path == spec_path(self.spec):
            object.__setattr__(self, "common_source", replace(self.common_source, path=""))

    @property
    def source(self) -> ModelSource:
        """Made anew each time: where only the type or the runtime counts, ask `common_source`."""
        path = self.common_source.path or spec_path(self.spec)
        return replace(self.common_source, path=path)


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """A model on a node.

    `since_s` is when it entered its state; `reason` is set when it is Failed.
    """

    model: ModelId
    node: NodeId
    state: CopyState
    since_s: float
    size_bytes: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node and what it offers; without a runtime it only routes.

    `address` is where its peers reach it, as a gRPC target. `loading` counts the loads under way,
    `rps` is requests a second over its last half minute, `oldest_use_s` the time of the use that is
    longest ago among its copies and `newest_use_s` that of the last one (seconds since the epoch, 0
    where there was none). These, with `used_bytes`, are a little behind: they are announced once a
    second at most.
    """

    id: NodeId
    state: NodeState
    address: str = ""
    runtime: RuntimeName | None = None
    model_types: frozenset[ModelType] = frozenset()
    capacity_bytes: int = 0
    used_bytes: int = 0
    zone: str = ""
    labels: frozenset[str] = frozenset()
    loading: int = 0
    rps: float = 0.0
    oldest_use_s: float = 0.0
    newest_use_s: float = 0.0
    joined_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RuntimeRecord:
    """A ServingRuntime of which somebody starts and stops nodes; there may be none of them now.

    `since_s` is when it entered its state, in seconds since the epoch; `model_types` those that it
    takes without being named.
    """

    name: RuntimeName
    state: RuntimeState
    since_s: float = 0.0
    model_types: frozenset[ModelType] = frozenset()


@dataclass(frozen=True, slots=True)
class RuntimeWish:
    """When a request or a load last waited for a runtime that has no node, as far as is written."""

    runtime: RuntimeName
    wanted_s: float


Record = Predictor | BackingModel | CopyRecord | NodeRecord | RuntimeRecord | RuntimeWish
