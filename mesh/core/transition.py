"""How a Predictor moves from one backing model to the next.

Theory. The active model answers; the target is the one that will. They are the same at rest. A
changed spec names a new target; once that is Loaded it becomes active and the old one is
discarded, in one commit. While the active model has never been Loaded there is nothing to
protect, and a changed spec replaces it at once. A target that fails changes nothing here: the
Predictor stays as it is, and what it shows (`status`) is Blocked; a spec that goes back to the
active model ends that.

A Predictor refers to its active and its target model and to no other, so that what is discarded is
what one state referred to and the next does not.
"""

from dataclasses import dataclass, replace

from mesh.core.ids import ModelId
from mesh.core.records import BackingModel, Predictor
from mesh.core.spec import PredictorSpec


@dataclass(frozen=True, slots=True)
class Applied:
    """Its owner wrote this spec."""

    spec: PredictorSpec


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A copy of this model is Loaded somewhere."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Removed:
    """Its owner deleted it."""


Event = Applied | ModelLoaded | Removed


@dataclass(frozen=True, slots=True)
class Register:
    """Write this backing model in the same commit."""

    model: BackingModel


@dataclass(frozen=True, slots=True)
class Discard:
    """Delete this backing model in the same commit: nothing refers to it any more."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Retry:
    """The owner asks for this model once more: forget that it failed."""

    model: ModelId


Effect = Register | Discard | Retry


def step(
    state: Predictor | None, event: Event, *, now: float
) -> tuple[Predictor | None, tuple[Effect, ...]]:
    """The Predictor after `event`, None where it does not exist. `now`: seconds since the epoch."""
    match event:
        case Applied(spec=spec):
            return _applied(state, spec, now)
        case ModelLoaded(model=model):
            return _loaded(state, model)
        case Removed():  # pragma: no branch - the last of the union
            return None, _discards(state, None)


def _applied(
    state: Predictor | None, spec: PredictorSpec, now: float
) -> tuple[Predictor, tuple[Effect, ...]]:
    wanted = ModelId(f"{spec.name}-{spec.hash}")
    model = BackingModel(wanted, spec.name, spec.canonical, spec.source)
    if state is None:
        created = Predictor(spec.name, spec.canonical, wanted, wanted, False, now, 1)
        return _counted(created, spec), (Register(model),)
    if state.spec == spec.canonical:
        return state, (Retry(wanted),)
    after = replace(state, spec=spec.canonical, target=wanted, generation=state.generation + 1)
    after = _counted(after, spec)
    if not state.served:
        after = replace(after, active=wanted)
    is_known = wanted in (state.active, state.target)
    effects: tuple[Effect, ...] = (Retry(wanted),) if is_known else (Register(model),)
    return after, effects + _discards(state, after)


def _counted(state: Predictor, spec: PredictorSpec) -> Predictor:
    return replace(state, min_copies=spec.min_copies, max_copies=spec.max_copies)


def _loaded(state: Predictor | None, model: ModelId) -> tuple[Predictor | None, tuple[Effect, ...]]:
    if state is None or model != state.target:
        return state, ()
    after = replace(state, active=model, served=True)
    return after, _discards(state, after)


def _discards(before: Predictor | None, after: Predictor | None) -> tuple[Discard, ...]:
    def referred(predictor: Predictor | None) -> list[ModelId]:
        return [] if predictor is None else [predictor.active, predictor.target]

    kept = referred(after)
    return tuple(Discard(model) for model in dict.fromkeys(referred(before)) if model not in kept)
