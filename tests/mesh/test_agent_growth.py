"""Copies that follow use: the rules of `core.demand`, as nodes with real engines keep them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mesh.agent.copy import Purpose
from mesh.core.copies import Leave
from mesh.core.demand import MINUTE_S, Thresholds
from mesh.core.ids import ModelId
from mesh.core.policy import Policy
from tests.mesh.test_agent_questions import Place
from tests.support.engine import Engine, until
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s

LOOK_S = 1.0
# A model that is used again after so long is used again and again; uses are told apart by minutes.
AGAIN_S = 420.0


@asynccontextmanager
async def nodes_with(
    count: int, thresholds: Thresholds, capacity_bytes: int = 10 * MB
) -> AsyncIterator[list[Engine]]:
    """Nodes of one mesh that know each other."""
    async with AsyncExitStack() as stack:
        place = Place(stack)
        nodes = [
            await place.start(
                f"n{number + 1}",
                policy=Policy(thresholds=thresholds),
                runtime=FakeRuntime(capacity_bytes=capacity_bytes),
            )
            for number in range(count)
        ]
        await until(lambda: all(len(node.node.view.nodes) == count for node in nodes))
        yield nodes


def holders(nodes: Sequence[Engine], model: ModelId) -> list[Engine]:
    return [node for node in nodes if model in node.runtime.loaded]


async def applied(nodes: Sequence[Engine], name: str, **bounds: int) -> ModelId:
    """A model with one copy."""
    model = await nodes[0].apply(name, name, **bounds)
    await until(lambda: all(name in node.node.routes for node in nodes))
    assert len(holders(nodes, model)) == 1
    return model


@pytest.mark.parametrize(("at_a_time", "expected"), [(2, 1), (3, 2)])
async def test_copies_grow_with_what_is_in_flight_on_average(at_a_time: int, expected: int):
    """Long requests, which are few a second."""
    async with nodes_with(2, Thresholds(in_flight=2.0, look_s=LOOK_S)) as nodes:
        model = await applied(nodes, "p")
        (holder,) = holders(nodes, model)
        held = [await holder.node.resolve("p") for _ in range(at_a_time)]
        await asyncio.sleep(30 * LOOK_S)
        assert {copy.hop for copy in held} == {()}
        assert len(holders(nodes, model)) == expected


@pytest.mark.parametrize(("most", "expected"), [(0, 3), (2, 2), (1, 1)])
async def test_copies_grow_up_to_the_predictors_most(most: int, expected: int):
    async with nodes_with(3, Thresholds(rps=0.5, look_s=LOOK_S)) as nodes:
        model = await applied(nodes, "p", max_copies=most)
        for _ in range(120):
            for node in nodes:  # each has enough of it for a copy of its own
                await node.ask("p")
            await asyncio.sleep(0.25)
        assert len(holders(nodes, model)) == expected


async def test_model_that_is_used_again_and_again_gets_a_second_copy_that_stays():
    """Which holder is the last in order, and so would give its copy up, is another by model."""
    names = [f"p{number}" for number in range(6)]
    thresholds = Thresholds(look_s=LOOK_S, again_after_s=AGAIN_S)
    async with nodes_with(2, thresholds) as nodes:
        models = [await applied(nodes, name) for name in names]
        await asyncio.sleep(2 * LOOK_S)
        used_s = loop_time_s()
        for pause_s in (0.0, AGAIN_S / 2, AGAIN_S + MINUTE_S):
            await asyncio.sleep(used_s + pause_s - loop_time_s())
            assert [len(holders(nodes, model)) for model in models] == [1] * len(models)
            for name, model in zip(names, models, strict=True):
                (holder,) = holders(nodes, model)
                await holder.ask(name)
        await until(lambda: all(len(holders(nodes, model)) == 2 for model in models))
        await asyncio.sleep(4 * thresholds.trim_s)
        assert [len(holders(nodes, model)) for model in models] == [2] * len(models)
        copies = [node.node.holdings.get(model) for node in nodes for model in models]
        purposes = [copy.purpose for copy in copies if copy is not None]
        assert purposes.count(Purpose.AGAIN) == len(models)
        assert [len(node.runtime.loads) for node in nodes] == [len(models)] * 2


async def test_request_that_loads_a_model_counts_as_its_first_use():
    async with nodes_with(2, Thresholds(look_s=LOOK_S, again_after_s=AGAIN_S)) as nodes:
        model = await applied(nodes, "p")
        (holder,) = holders(nodes, model)
        holder.node.holdings.send(model, Leave())
        await until(lambda: not holders(nodes, model))
        await nodes[0].ask("p")
        await asyncio.sleep(AGAIN_S + MINUTE_S)
        (holder,) = holders(nodes, model)
        await holder.ask("p")
        await until(lambda: len(holders(nodes, model)) == 2)


async def test_second_copy_of_what_is_used_again_and_again_takes_free_room_only():
    async with nodes_with(2, Thresholds(look_s=LOOK_S, again_after_s=AGAIN_S), MB) as nodes:
        models = [await applied(nodes, name) for name in ("a", "b")]
        for _ in range(3):
            (holder,) = holders(nodes, models[0])
            await holder.ask("a")
            await asyncio.sleep(AGAIN_S)
        assert [len(holders(nodes, model)) for model in models] == [1, 1]
        assert [node.runtime.unloads for node in nodes] == [[], []]
