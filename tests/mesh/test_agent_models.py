"""Backing models in the store, and what a switch rests on, over the memory store."""

import asyncio
from dataclasses import replace

import pytest

from mesh.agent.models import find, register, unregister
from mesh.agent.predictors import advance
from mesh.agent.transitions import Transitions
from mesh.core.errors import AlreadyExists, Conflict, NoSuchResource, NotAsExpected
from mesh.core.ids import NodeId, PredictorName
from mesh.core.records import CopyState
from mesh.core.references import NOBODY, referrers
from mesh.core.transition import Applied, ModelLoaded, Removed, Retargeted
from mesh.core.view import View
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Delete, Put, Unchanged
from mesh.wire import records
from tests.support.builders import copy, model_of, source, spec

NOW = 5.0
P, Q = PredictorName("p"), PredictorName("q")
X = replace(model_of("other", "x"), predictor=NOBODY)


def now() -> float:
    return NOW


def to(name, model=X, **fields):
    return Retargeted(name, model, **fields)


class Raced(MemoryRegistry):
    """Somebody else writes first, just before a commit: once each of `before`."""

    def __init__(self, *before):
        super().__init__()
        self.before = list(before)

    async def commit(self, ops, checks=()):
        if self.before and checks:
            await self.before.pop(0)(self)
        return await super().commit(ops, checks)


async def names_of(registry, model=X.id):
    found = await find(registry, model)
    return None if found.model is None else referrers(found.model)


async def test_registered_model_is_nobodys_and_stays():
    registry = MemoryRegistry()
    assert await register(registry, X) is not None
    assert await register(registry, X) is None
    found = await find(registry, X.id)
    assert (found.model.predictor, found.model.auto_delete) == ("", False)
    with pytest.raises(AlreadyExists):
        await register(registry, replace(X, common_source=source("y")))
    await advance(registry, P, to(P), now)
    with pytest.raises(NotAsExpected, match=r"^model '.*' is in use by predictor 'p'$"):
        await unregister(registry, X.id)
    await advance(registry, P, Removed(), now)
    assert await names_of(registry) == frozenset()
    assert await unregister(registry, X.id) is not None
    assert await unregister(registry, X.id) is None


async def test_name_cannot_point_at_what_goes_at_the_same_moment():
    async def unregistered(registry):
        await unregister(registry, X.id)

    registry = Raced()
    await register(registry, X)
    registry.before = [unregistered]
    with pytest.raises(NoSuchResource, match=r"^model '.*' not found$"):
        await advance(registry, P, to(P), now)
    assert (await registry.list("")).entries == ()


async def test_model_stays_when_another_name_points_at_it_at_the_moment_of_its_end():
    async def pointed(registry):
        await advance(registry, Q, to(Q), now)

    registry = Raced()
    await advance(registry, P, to(P, is_new=True), now)
    registry.before = [pointed]
    await advance(registry, P, Removed(), now)
    assert await names_of(registry) == {"q"}
    await advance(registry, Q, Removed(), now)
    assert (await registry.list("")).entries == ()


async def test_unregistering_gives_way_to_a_name_that_comes_first():
    async def pointed(registry):
        await advance(registry, P, to(P), now)

    registry = Raced()
    await register(registry, X)
    registry.before = [pointed]
    with pytest.raises(NotAsExpected):
        await unregister(registry, X.id)


async def test_registering_at_once_writes_one_record():
    async def registered(registry):
        await register(registry, X)

    registry = Raced(registered)
    assert await register(registry, X) is None
    assert await names_of(registry) == frozenset()


async def test_two_that_create_one_model_both_refer_to_it():
    async def created(registry):
        await advance(registry, Q, to(Q, is_new=True), now)

    registry = Raced(created)
    await advance(registry, P, to(P, is_new=True), now)
    assert await names_of(registry) == {"p", "q"}


async def test_spec_does_not_take_the_id_of_another_model():
    registry = MemoryRegistry()
    other = to(Q, model=replace(X, id=model_of("p", "a").id))
    await register(registry, other.model)
    with pytest.raises(AlreadyExists, match=r"exists with another type, path or key$"):
        await advance(registry, P, Applied(spec("p", "a")), now)


async def test_model_that_is_gone_already_is_let_go_without_an_error():
    registry = MemoryRegistry()
    await advance(registry, P, Applied(spec("p", "a")), now)
    await registry.commit([Delete(records.model_key(model_of("p", "a").id))])
    assert (await advance(registry, P, Removed(), now)).after is None


# What a switch rests on.

A, B = model_of("p", "a"), model_of("p", "b")


async def put_copy(registry, model, state, node="n1"):
    record = copy(model, state, node)
    return await registry.commit(
        [Put(records.copy_key(model, NodeId(node)), records.encode(record))]
    )


async def moving(registry):
    """A served Predictor on its way from A to B."""
    for event in (Applied(spec("p", "a")), ModelLoaded(A.id), Applied(spec("p", "b"))):
        await advance(registry, P, event, now)


async def active(registry):
    entry = await registry.get(records.predictor_key(P))
    return records.decode(entry.key, entry.value).active


async def test_step_whose_evidence_is_gone_is_not_taken():
    registry = MemoryRegistry()
    await moving(registry)
    key = records.copy_key(B.id, NodeId("n1"))
    revision = await put_copy(registry, B.id, CopyState.LOADED)
    await put_copy(registry, B.id, CopyState.UNLOADING)
    with pytest.raises(Conflict, match=f"^{key}"):
        await advance(registry, P, ModelLoaded(B.id), now, evidence=(Unchanged(key, revision),))
    assert await active(registry) == A.id


async def test_step_is_taken_again_after_a_race_and_still_rests_on_its_evidence():
    async def changed(registry):
        again = replace(spec("p", "b"), canonical='{"n":1}')
        await advance(registry, P, Applied(again), now)

    registry = Raced()
    await moving(registry)
    key = records.copy_key(B.id, NodeId("n1"))
    revision = await put_copy(registry, B.id, CopyState.LOADED)
    registry.before = [changed]
    outcome = await advance(
        registry, P, ModelLoaded(B.id), now, evidence=(Unchanged(key, revision),)
    )
    assert outcome.after.spec == '{"n":1}'
    assert await active(registry) == B.id


class NoLoads:
    """A loader whose turn it is and that has nothing to load."""

    def question(self, model, *, fill=False):
        return None

    def match(self, model, before):
        pass

    def rank(self, name):
        return 0

    def holds(self, model):
        return True

    def monotonic(self):
        return 0.0


async def reporting(registry, *, until_s):
    """A view that holds B for Loaded, and what was made of it after a while."""
    view = View()
    for entry in (await registry.list(records.PREDICTORS)).entries:
        view.put(records.decode(entry.key, entry.value))
    view.put(copy(B.id, CopyState.LOADED))
    transitions = Transitions(view, registry, NoLoads(), now)
    transitions.consider(P)
    await asyncio.sleep(until_s)
    return view, transitions


@pytest.mark.parametrize("said", [None, CopyState.UNLOADING, CopyState.FAILED, "rubbish"])
async def test_late_report_does_not_switch_to_a_model_that_the_store_has_not_loaded(said):
    registry = MemoryRegistry()
    await moving(registry)
    if said == "rubbish":
        await registry.commit([Put(records.copy_key(B.id, NodeId("n1")), b"{")])
    elif said is not None:
        await put_copy(registry, B.id, said)
    _, transitions = await reporting(registry, until_s=5.0)
    assert await active(registry) == A.id
    await put_copy(registry, B.id, CopyState.LOADED)
    await asyncio.sleep(1.0)
    assert await active(registry) == B.id
    await transitions.close()


async def test_report_does_not_switch_where_the_copy_moves_on_at_the_same_moment():
    async def unloaded(registry):
        await put_copy(registry, B.id, CopyState.UNLOADING)

    registry = Raced()
    await moving(registry)
    await put_copy(registry, B.id, CopyState.LOADED)
    registry.before = [unloaded]
    _, transitions = await reporting(registry, until_s=5.0)
    assert registry.before == []
    assert await active(registry) == A.id
    await transitions.close()


async def test_report_ends_when_the_copy_is_gone_from_the_view():
    registry = MemoryRegistry()
    await moving(registry)
    view, transitions = await reporting(registry, until_s=1.0)
    view.drop_copy(B.id, NodeId("n1"))
    await asyncio.sleep(1.0)
    await put_copy(registry, B.id, CopyState.LOADED)
    await asyncio.sleep(5.0)
    assert await active(registry) == A.id
    await transitions.close()
