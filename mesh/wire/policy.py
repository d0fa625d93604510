"""The policy file of a node: `typeConstraints` as ModelMesh's `type_constraints`, and `copies`."""

from typing import Annotated

from pydantic import Field

from mesh.core.demand import DEFAULTS, Thresholds
from mesh.core.placement import Constraint
from mesh.core.policy import Policy
from mesh.wire.problems import Strict, settled, validated
from mesh.wire.runtime_manifest import Several

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
Share = Annotated[float, Field(gt=0, le=1, strict=False)]


class _Constraint(Strict):
    required: Several[str] = ()
    preferred: Several[str] = ()


class _Copies(Strict):
    requests_per_second: Positive = Field(
        DEFAULTS.rps, description="With so many a second a copy is busy enough."
    )
    in_flight: Positive = Field(
        DEFAULTS.in_flight, description="So is one with so many at a time, on average."
    )
    shrink_below: Share = Field(
        DEFAULTS.shrink_below,
        description="Share of that which fewer copies must be able to stay under.",
    )
    step: Share = Field(
        DEFAULTS.step, description="Share of the nodes that may get a copy at once."
    )
    look_seconds: Positive = Field(
        DEFAULTS.look_s, description="How often a node looks at its copies."
    )
    keep_seconds: Positive = Field(
        DEFAULTS.keep_s, description="How long copies stay after the use that they came for."
    )
    trim_seconds: Positive = Field(
        DEFAULTS.trim_s, description="How long there must be too many before one goes."
    )
    again_after_seconds: Positive = Field(
        DEFAULTS.again_after_s,
        description="A model used again after so long gets a second copy in free room.",
    )
    again_within_seconds: Positive = Field(
        DEFAULTS.again_within_s, description="Uses further apart than that do not count as such."
    )


class PolicyFile(Strict):
    """The document."""

    type_constraints: dict[str, _Constraint] = Field(
        {}, description="Labels of nodes by model type: `required` and `preferred`."
    )
    copies: _Copies = Field(default_factory=_Copies, description="When copies grow and shrink.")


def parse_policy(document: object) -> Policy:
    """Raises InvalidManifest with every problem and its path."""
    file = settled(*validated(PolicyFile, {} if document is None else document))
    constraints = {
        kind: Constraint(frozenset(labels.required), frozenset(labels.preferred))
        for kind, labels in file.type_constraints.items()
    }
    copies = file.copies
    thresholds = Thresholds(
        rps=copies.requests_per_second,
        in_flight=copies.in_flight,
        shrink_below=copies.shrink_below,
        step=copies.step,
        look_s=copies.look_seconds,
        keep_s=copies.keep_seconds,
        trim_s=copies.trim_seconds,
        again_after_s=copies.again_after_seconds,
        again_within_s=copies.again_within_seconds,
    )
    return Policy(constraints, thresholds)
