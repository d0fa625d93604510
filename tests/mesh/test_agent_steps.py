"""Changes that owners ask for while a store that lost its data is being filled again."""

import asyncio

import pytest

from mesh.core.errors import Unavailable
from mesh.core.ids import PredictorName
from mesh.core.transition import Applied, Removed
from mesh.registry.port import Put
from mesh.wire.records import SEEDED
from router.administration import Administration
from router.steps import WHOLE_S, Steps
from tests.support.builders import spec
from tests.support.engine import Engine, engine, until
from tests.support.fake_peers import Network
from tests.support.virtual_time import loop_time_s

P = PredictorName("p")


def steps(w: Engine) -> Steps:
    administration = Administration(w.node, lambda _: None)  # type: ignore[arg-type]
    return Steps(w.node, w.registry, administration)


async def test_change_waits_until_the_store_is_whole():
    async with engine(network=Network()) as w:
        begun = asyncio.get_running_loop().create_task(steps(w).take(P, Applied(spec("p", "a"))))
        await asyncio.sleep(WHOLE_S / 2)
        assert P not in w.node.view.predictors
        await w.registry.commit([Put(SEEDED, b"1")])
        await begun
        assert P in w.node.view.predictors


async def test_change_is_refused_where_nobody_fills_the_store():
    async with engine(network=Network()) as w:
        await w.apply("p")
        began_s = loop_time_s()
        with pytest.raises(Unavailable, match="the store has lost its data and is being filled"):
            await steps(w).take(P, Removed())
        assert loop_time_s() - began_s == pytest.approx(WHOLE_S)
        assert P in w.node.view.predictors


async def test_node_that_is_alone_need_not_ask():
    async with engine() as w:
        await steps(w).take(P, Applied(spec("p", "a")))
        await until(lambda: P in w.node.view.predictors)
