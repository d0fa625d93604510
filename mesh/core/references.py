"""Which Predictors refer to a backing model, and when it goes because none does any more.

The names stand in the model's own record, so that a commit which changes one of them, and checks
that the record is unchanged, cannot delete what another Predictor has begun to refer to meanwhile.
A name counts once: to refer again, or to let go again, changes nothing.
"""

from dataclasses import replace

from mesh.core.ids import PredictorName
from mesh.core.records import BackingModel
from mesh.core.spec import ModelSource

NOBODY = PredictorName("")


def referrers(model: BackingModel) -> frozenset[PredictorName]:
    """The Predictors that refer to it."""
    return frozenset((model.predictor, *model.also)) - {NOBODY}


def referred(model: BackingModel, name: PredictorName) -> BackingModel:
    """The model once this Predictor refers to it."""
    return _with(model, referrers(model) | {name})


def released(model: BackingModel, name: PredictorName) -> BackingModel | None:
    """The model once this Predictor refers to it no more; None where it is to be deleted."""
    left = referrers(model) - {name}
    return None if not left and model.auto_delete else _with(model, left)


def is_same(one: ModelSource, other: ModelSource) -> bool:
    """Whether two registrations of one id say the same; a `key` is compared where both have one."""
    if one.key and other.key:
        return one == other
    return replace(one, key="") == replace(other, key="")


def _with(model: BackingModel, names: frozenset[PredictorName]) -> BackingModel:
    """The first to refer to it stays the first."""
    first = model.predictor if model.predictor in names else min(names, default=NOBODY)
    return replace(model, predictor=first, also=tuple(sorted(names - {first})))
