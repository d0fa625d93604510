"""Backing models in the store: registered, unregistered, and referred to by Predictors.

A change of one is always checked against what was read, so that two that refer to it, or let it go,
at the same moment do not lose each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mesh.core import transition
from mesh.core.errors import AlreadyExists, Conflict, NoSuchResource, NotAsExpected
from mesh.core.ids import ModelId, PredictorName, Revision
from mesh.core.records import BackingModel
from mesh.core.references import NOBODY, is_same, referred, referrers, released
from mesh.registry.port import Absent, Check, Delete, Op, Put, Registry, Unchanged
from mesh.wire import records


@dataclass(slots=True)
class Plan:
    """What a commit is to do, and what it rests on."""

    ops: list[Op] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    def change(self, found: "Found", after: BackingModel | None) -> None:
        """Adds the change of one model, which is as it was found."""
        key = records.model_key(found.id)
        self.checks.append(found.check)
        self.ops.append(Delete(key) if after is None else Put(key, records.encode(after)))


@dataclass(frozen=True, slots=True)
class Found:
    """A model in the store, None where it is not there, and the check that says so."""

    id: ModelId
    model: BackingModel | None
    check: Check


async def find(registry: Registry, model: ModelId) -> Found:
    """The model as it stands in the store."""
    key = records.model_key(model)
    entry = await registry.get(key)
    if entry is None:
        return Found(model, None, Absent(key))
    record = records.decode(key, entry.value)
    assert isinstance(record, BackingModel)  # noqa: S101 - the key says so
    return Found(model, record, Unchanged(key, entry.revision))


async def register(registry: Registry, model: BackingModel) -> Revision | None:
    """Writes a model that stays until it is unregistered; None where it is there already.

    Raises AlreadyExists where something else has its id.
    """
    while True:
        found = await find(registry, model.id)
        if found.model is not None:
            reject_other(model, found.model)
            return None
        plan = Plan()
        plan.change(found, replace(model, predictor=NOBODY, also=(), auto_delete=False))
        try:
            return await registry.commit(plan.ops, plan.checks)
        except Conflict:
            continue


async def unregister(registry: Registry, model: ModelId) -> Revision | None:
    """Deletes a model; None where there is none. Raises NotAsExpected where it is referred to."""
    while True:
        found = await find(registry, model)
        if found.model is None:
            return None
        if names := referrers(found.model):
            raise NotAsExpected(f"model {model!r} is in use by predictor {min(names)!r}")
        plan = Plan()
        plan.change(found, None)
        try:
            return await registry.commit(plan.ops, plan.checks)
        except Conflict:
            continue


async def carry_out(
    plan: Plan, registry: Registry, name: PredictorName, effects: Sequence[transition.Effect]
) -> None:
    """Adds to the plan what the effects of a step come to, for the models that they name.

    Raises AlreadyExists, NoSuchResource.
    """
    for effect in effects:
        match effect:
            case transition.Register(model=model):
                found = await find(registry, model.id)
                if found.model is not None:
                    reject_other(model, found.model)
                plan.change(found, referred(found.model or model, name))
            case transition.Refer(model=model_id):
                found = await find(registry, model_id)
                if found.model is None:
                    raise NoSuchResource("model", model_id)
                plan.change(found, referred(found.model, name))
            case transition.Discard(model=model_id):
                found = await find(registry, model_id)
                if found.model is not None:
                    plan.change(found, released(found.model, name))
            case transition.Retry():
                pass


def reject_other(wanted: BackingModel, there: BackingModel) -> None:
    """Raises AlreadyExists where the id is that of another model."""
    if not is_same(wanted.source, there.source):
        raise AlreadyExists(f"model {wanted.id!r} exists with another type, path or key")
