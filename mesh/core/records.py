"""The records of the store:
what is written, by whom, is in docs/architecture.md; how, in `wire.records`.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
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


@dataclass(frozen=True, slots=True)
class Predictor:
    """A stable name.

    `served` says that the active model was Loaded once, so that it may not be given up.
    """

    name: PredictorName
    spec: str
    active: ModelId
    target: ModelId
    served: bool
    created_s: float
    generation: int


@dataclass(frozen=True, slots=True)
class BackingModel:
    """One immutable model, of `predictor`. It goes when no Predictor refers to it any more."""

    id: ModelId
    predictor: PredictorName
    spec: str
    source: ModelSource


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
    """A node and what it offers; without a runtime it only routes."""

    id: NodeId
    state: NodeState
    address: str = ""
    runtime: RuntimeName | None = None
    model_types: frozenset[ModelType] = frozenset()
    capacity_bytes: int = 0
    used_bytes: int = 0


Record = Predictor | BackingModel | CopyRecord | NodeRecord
