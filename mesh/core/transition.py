"""How a Predictor moves from one backing model to the next.

Theory. The active model answers; the target is the one that will. They are the same at rest. A
changed spec names a new target; once that is Loaded it becomes active and the old one is
discarded, in one commit. While the active model has never been Loaded there is nothing to
protect, and a changed spec replaces it at once. A target that fails changes nothing here: the
Predictor stays as it is, and what it shows (`status`) is Blocked; a spec that goes back to the
active model ends that.

A name may also be pointed at a model that has an id of its own. That goes the same way, but that
its owner may have the switch at once: by force, or where nothing of the active model is loaded.

A Predictor refers to its active and its target model and to no other, so that what is discarded is
what one state referred to and the next does not. A model may have other Predictors that refer to
it: `core.references` says what becomes of it.
"""

from dataclasses import dataclass, replace

from mesh.core.errors import AlreadyExists, ModelNotFound, NotAsExpected
from mesh.core.ids import ModelId, PredictorName
from mesh.core.records import BackingModel, Predictor
from mesh.core.spec import PredictorSpec


@dataclass(frozen=True, slots=True)
class Applied:
    """Its owner wrote this spec; `owner` may be empty, for who changes whatever there is."""

    spec: PredictorSpec
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Retargeted:
    """Its owner points the name at this model.

    `is_new`: the model is created along the way, if it is not there. `owner`: empty asks for none.
    `expected`: the target that it must have now, empty for any. `is_update`: the name must exist.
    `is_forced`: at once, whatever is loaded. `is_idle`: nothing of the active model is loaded, so
    that there is nothing to wait for.
    """

    name: PredictorName
    model: BackingModel
    is_new: bool = False
    owner: str = ""
    expected: str = ""
    is_update: bool = False
    is_forced: bool = False
    is_idle: bool = False


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A copy of this model is Loaded somewhere."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Removed:
    """Its owner deleted it; nothing happens where it is somebody else's (empty: anybody's)."""

    owner: str = ""


Event = Applied | Retargeted | ModelLoaded | Removed


@dataclass(frozen=True, slots=True)
class Register:
    """Refer to this backing model, and write it if it is not there, in the same commit."""

    model: BackingModel


@dataclass(frozen=True, slots=True)
class Refer:
    """Refer to this backing model, which must be there, in the same commit."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Discard:
    """Refer to this backing model no more: it goes in the same commit, unless it is to stay."""

    model: ModelId


@dataclass(frozen=True, slots=True)
class Retry:
    """The owner asks for this model once more: forget that it failed."""

    model: ModelId


Effect = Register | Refer | Discard | Retry


def step(
    state: Predictor | None, event: Event, *, now: float
) -> tuple[Predictor | None, tuple[Effect, ...]]:
    """The Predictor after `event`, None where it does not exist. `now`: seconds since the epoch.

    Applied and Retargeted raise AlreadyExists where the name is another owner's; Retargeted also
    ModelNotFound or NotAsExpected where a condition of it fails.
    """
    match event:
        case Applied(spec=spec, owner=owner):
            return _applied(state, spec, owner, now)
        case Retargeted():
            return _retargeted(state, event, now)
        case ModelLoaded(model=model):
            return _loaded(state, model)
        case Removed(owner=owner):  # pragma: no branch - the last of the union
            if state is not None and owner not in ("", state.owner):
                return state, ()
            return None, _discards(state, None)


def _applied(
    state: Predictor | None, spec: PredictorSpec, owner: str, now: float
) -> tuple[Predictor, tuple[Effect, ...]]:
    wanted = ModelId(f"{spec.name}-{spec.hash}")
    model = BackingModel(wanted, spec.name, spec.canonical, spec.source)
    if state is None:
        created = Predictor(spec.name, spec.canonical, wanted, wanted, False, now, 1, owner)
        return _counted(created, spec), (Register(model),)
    _check_owner(state, owner)
    if state.spec == spec.canonical:
        return state, (Retry(state.target),)
    after = replace(state, spec=spec.canonical, target=wanted, generation=state.generation + 1)
    after = _counted(after, spec)
    if not state.served:
        after = replace(after, active=wanted)
    is_known = wanted in (state.active, state.target)
    effects: tuple[Effect, ...] = (Retry(wanted),) if is_known else (Register(model),)
    return after, effects + _discards(state, after)


def _retargeted(
    state: Predictor | None, event: Retargeted, now: float
) -> tuple[Predictor, tuple[Effect, ...]]:
    target, spec = event.model.id, event.model.spec
    _check(state, event)
    refer: Effect = Register(event.model) if event.is_new else Refer(target)
    if state is None:
        return Predictor(event.name, spec, target, target, False, now, 1, event.owner), (refer,)
    if target == state.target and (target == state.active or not event.is_forced):
        return state, (Retry(target),)
    after = replace(state, spec=spec, target=target, min_copies=0, max_copies=0)
    if target != state.target:
        after = replace(after, generation=state.generation + 1)
    if target != state.active and (event.is_forced or event.is_idle or not state.served):
        after = replace(after, active=target, served=False)
    is_known = target in (state.active, state.target)
    return after, (Retry(target) if is_known else refer, *_discards(state, after))


def _check(state: Predictor | None, event: Retargeted) -> None:
    """The conditions of a retarget. A target that it has already is always as expected."""
    if state is None:
        if event.is_update:
            raise ModelNotFound(event.name)
        if event.expected not in ("", event.model.id):
            raise NotAsExpected(f"predictor {event.name!r} does not exist, so it has no target")
        return
    _check_owner(state, event.owner)
    if event.expected not in ("", state.target) and event.model.id != state.target:
        raise NotAsExpected(
            f"the target of predictor {event.name!r} is {state.target!r}, not {event.expected!r}"
        )


def _check_owner(state: Predictor, owner: str) -> None:
    if owner not in ("", state.owner):
        raise AlreadyExists(f"predictor {state.name!r} belongs to {state.owner or 'nobody'!r}")


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
