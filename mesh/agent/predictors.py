"""Changes Predictors in the store: each is one step of `core.transition`, in one commit.

The owner's side (apply, delete) and the mesh's own (a target is Loaded) write through here alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.core import transition
from mesh.core.errors import Conflict
from mesh.core.ids import PredictorName, Revision
from mesh.core.records import Predictor
from mesh.registry.port import Absent, Check, Delete, Entry, Op, Put, Registry, Unchanged
from mesh.wire import records


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step changed; `revision` is None where it changed nothing."""

    before: Predictor | None
    after: Predictor | None
    effects: tuple[transition.Effect, ...]
    revision: Revision | None


async def advance(
    registry: Registry, name: PredictorName, event: transition.Event, now: Callable[[], float]
) -> Outcome:
    """One step, tried again as long as somebody else changes the same Predictor first."""
    key = records.predictor_key(name)
    while True:
        entry = await registry.get(key)
        before = _read(key, entry)
        after, effects = transition.step(before, event, now=now())
        if after == before:
            return Outcome(before, after, effects, None)
        check: Check = Absent(key) if entry is None else Unchanged(key, entry.revision)
        try:
            revision = await registry.commit(_ops(key, after, effects), (check,))
        except Conflict:
            continue
        return Outcome(before, after, effects, revision)


def _read(key: str, entry: Entry | None) -> Predictor | None:
    if entry is None:
        return None
    record = records.decode(key, entry.value)
    assert isinstance(record, Predictor)  # noqa: S101 - the key says so
    return record


def _ops(key: str, after: Predictor | None, effects: Sequence[transition.Effect]) -> list[Op]:
    ops: list[Op] = [Delete(key) if after is None else Put(key, records.encode(after))]
    for effect in effects:
        match effect:
            case transition.Register(model=model):
                ops.append(Put(records.model_key(model.id), records.encode(model)))
            case transition.Discard(model=model_id):
                ops.append(Delete(records.model_key(model_id)))
            case transition.Retry():
                pass
    return ops
