"""Which copy of a route a request goes to: the less busy of two, rather the one that is here."""

from collections import Counter
from collections.abc import Callable

import pytest

from mesh.agent.copy import Copy
from mesh.agent.engine import HOP_WORTH
from mesh.agent.remote import RemoteCopy
from mesh.agent.routes import Route
from mesh.core.ids import ModelId, NodeId
from tests.support.engine import Engine, engine

DRAWS = 4000


def elsewhere(*in_flight: int) -> tuple[RemoteCopy, ...]:
    """Copies on other nodes, each with so many requests."""
    return tuple(
        RemoteCopy(ModelId("m"), NodeId(f"n{number}"), f"n{number}:8034", busy)
        for number, busy in enumerate(in_flight, start=2)
    )


def shares(pick: Callable[[Route], Copy | RemoteCopy], route: Route) -> list[float]:
    """Of many requests, the share of each copy."""
    drawn = Counter(id(pick(route)) for _ in range(DRAWS))
    return [drawn[id(copy)] / DRAWS for copy in route]


@pytest.mark.parametrize(
    ("in_flight", "expected"),
    [
        ((0, 50), (1.0, 0.0)),
        ((50, 0), (0.0, 1.0)),
        ((4, 5), (1.0, 0.0)),
        ((0, 1, 50), (2 / 3, 1 / 3, 0.0)),
        ((50, 1, 0), (0.0, 1 / 3, 2 / 3)),
        ((1, 50, 0), (1 / 3, 0.0, 2 / 3)),
        ((7, 7), (1 / 2, 1 / 2)),
        ((7, 7, 7), (1 / 3, 1 / 3, 1 / 3)),
        ((0, 0, 50), (1 / 2, 1 / 2, 0.0)),
    ],
)
async def test_busier_of_two_copies_elsewhere_is_never_picked_and_equals_share(
    in_flight: tuple[int, ...], expected: tuple[float, ...]
):
    async with engine() as e:
        found = shares(e.node.pick, elsewhere(*in_flight))
    assert found == pytest.approx(expected, abs=0.05)
    assert [share == 0 for share in found] == [share == 0 for share in expected]


async def test_copy_here_is_picked_until_it_is_that_much_busier_than_another():
    async with engine() as e:
        here = await local(e)
        for others in ((0,), (0, 0), (0, 0, 0)):
            route = (here, *elsewhere(*others))
            here.in_flight = HOP_WORTH
            assert shares(e.node.pick, route)[0] == 1.0
            here.in_flight = HOP_WORTH + 1
            found = shares(e.node.pick, route)
            assert found == pytest.approx([0.0, *(1 / len(others) for _ in others)], abs=0.05)
        here.in_flight = HOP_WORTH + 1
        found = shares(e.node.pick, (here, *elsewhere(0, 50)))
        assert found == pytest.approx([1 / 2, 1 / 2, 0.0], abs=0.05)
        here.in_flight = 0


async def test_only_copy_is_picked_however_busy():
    async with engine() as e:
        (only,) = route = elsewhere(1000)
        assert e.node.pick(route) is only


async def local(e: Engine) -> Copy:
    """A Loaded copy on the node."""
    model = await e.apply("p")
    await e.ask("p")
    copy = e.node.holdings.get(model)
    assert copy is not None
    return copy
