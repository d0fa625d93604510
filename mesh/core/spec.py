"""What a Predictor and a ServingRuntime ask for, as frozen values.

`wire.manifests` makes them from files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.core.ids import PredictorName, RuntimeName, StorageKey

# In the place of a storage key, whose name it cannot be: the path is one of the runtime's machine.
LOCAL_FILES = StorageKey("file://")


@dataclass(frozen=True, slots=True)
class ModelType:
    """A model format, such as sklearn; without a version, any version of it."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.name}:{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are, and what they are: all that a runtime needs to load them.

    `key` is the `modelKey` as whoever registered the model wrote it, which runtimes get as it is;
    empty where it is made of the other fields.
    """

    type: ModelType
    path: str
    storage_key: StorageKey
    bucket: str = ""
    schema_path: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    runtime: RuntimeName | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class PredictorSpec:
    """A Predictor as its owner wrote it: `canonical` is the spec's JSON, which gives the hash.

    Counts of copies are 0 where it names none.
    """

    name: PredictorName
    canonical: str
    hash: str
    source: ModelSource
    min_copies: int = 0
    max_copies: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeSpec:
    """What placement needs of a ServingRuntime.

    `model_types` are those that it takes without being named.
    """

    name: RuntimeName
    model_types: frozenset[ModelType] = field(default_factory=frozenset)

    def supports(self, source: ModelSource) -> bool:
        """Whether a model of this source may be placed on this runtime."""
        if source.runtime is not None:
            return source.runtime == self.name
        wanted = source.type
        return any(
            wanted.name == offered.name and wanted.version in ("", offered.version)
            for offered in self.model_types
        )
