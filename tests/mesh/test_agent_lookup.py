"""Names that a node does not know yet, or that nobody knows."""

import asyncio
from contextlib import aclosing

import pytest

from mesh.agent.lookup import AT_ONCE, LIMIT_S, Lookup
from mesh.agent.predictors import advance
from mesh.core.errors import ModelNotFound, Unavailable
from mesh.core.ids import PredictorName
from mesh.core.transition import Applied
from tests.support.builders import spec
from tests.support.engine import engine
from tests.support.fickle_registry import FickleRegistry
from tests.support.virtual_time import CLOCK, loop_time_s


class Slow:
    """A store that holds its answers back; it counts what it is asked."""

    is_current = True

    def __init__(self) -> None:
        self.asked = 0

    async def get(self, key: str):
        self.asked += 1
        await asyncio.sleep(60)


class Late(FickleRegistry):
    """A store whose news come late."""

    async def watch(self, prefix, after, store_id=""):
        async with aclosing(super().watch(prefix, after, store_id)) as batches:
            async for batch in batches:
                await asyncio.sleep(0.2)
                yield batch


async def test_predictor_that_was_just_written_is_found():
    async with engine(registry=Late()) as e:
        await asyncio.sleep(1)
        await advance(e.registry, PredictorName("p"), Applied(spec("p", "a")), CLOCK.wall_s)
        assert "p" not in e.node.view.predictors  # its watch has not been served yet
        await e.ask("p")


async def test_name_that_nobody_knows_is_not_found():
    async with engine() as e:
        with pytest.raises(ModelNotFound):
            await e.node.resolve("nobody")


async def test_store_that_does_not_answer_holds_nobody_up_for_long_and_few_ask_it():
    slow = Slow()
    lookup = Lookup(slow, slow)
    began_s = loop_time_s()
    async with asyncio.TaskGroup() as group:
        for number in range(10 * AT_ONCE):
            group.create_task(lookup.see(PredictorName(f"p{number}")))
    assert slow.asked == AT_ONCE
    assert loop_time_s() - began_s == pytest.approx(LIMIT_S)


async def test_store_that_is_away_is_not_asked():
    slow = Slow()
    slow.is_current = False
    await Lookup(slow, slow).see(PredictorName("p"))
    assert slow.asked == 0


async def test_store_that_fails_is_as_one_that_has_nothing():
    class Failing(Slow):
        async def get(self, key: str):
            raise Unavailable("no store")

    failing = Failing()
    await Lookup(failing, failing).see(PredictorName("p"))
