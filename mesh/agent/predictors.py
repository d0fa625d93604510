"""Changes Predictors in the store: each is one step of `core.transition`, in one commit.

The owner's side (apply, delete) and the mesh's own (a target is Loaded) write through here alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.agent.models import Plan, carry_out
from mesh.core import transition
from mesh.core.errors import Conflict
from mesh.core.ids import PredictorName, Revision
from mesh.core.records import Predictor
from mesh.registry.port import Absent, Check, Delete, Entry, Put, Registry, Unchanged
from mesh.wire import records


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step changed; `revision` is None where it changed nothing."""

    before: Predictor | None
    after: Predictor | None
    effects: tuple[transition.Effect, ...]
    revision: Revision | None


async def advance(
    registry: Registry,
    name: PredictorName,
    event: transition.Event,
    now: Callable[[], float],
    *,
    evidence: Sequence[Check] = (),
) -> Outcome:
    """One step, tried again as long as somebody else changes the same Predictor or models first.

    `evidence` is what the event rests on: raises Conflict with its key where that does not hold any
    more. Also raises what the step does, and what `models.carry_out` does.
    """
    key = records.predictor_key(name)
    while True:
        entry = await registry.get(key)
        before = _read(key, entry)
        after, effects = transition.step(before, event, now=now())
        if after == before:
            return Outcome(before, after, effects, None)
        plan = Plan(
            ops=[Delete(key) if after is None else Put(key, records.encode(after))],
            checks=[Absent(key) if entry is None else Unchanged(key, entry.revision)],
        )
        await carry_out(plan, registry, name, effects)
        try:
            revision = await registry.commit(plan.ops, (*plan.checks, *evidence))
        except Conflict as error:
            if any(error.key == check.key for check in evidence):
                raise
            continue
        return Outcome(before, after, effects, revision)


def _read(key: str, entry: Entry | None) -> Predictor | None:
    if entry is None:
        return None
    record = records.decode(key, entry.value)
    assert isinstance(record, Predictor)  # noqa: S101 - the key says so
    return record
