"""What an administrator decides of placement and of the number of copies."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.core.demand import Thresholds
from mesh.core.placement import Constraint


@dataclass(frozen=True, slots=True)
class Policy:
    """`constraints` are by model type: `type:version`, `type`, or `_default` for all others."""

    constraints: Mapping[str, Constraint] = field(default_factory=dict)
    thresholds: Thresholds = field(default_factory=Thresholds)


DEFAULT = Policy()
