"""How often a call is tried where copies are busy."""

from typing import Any

import pytest

from mesh.agent.calls import CopyBusy
from mesh.agent.remote import RemoteCopy
from mesh.core.ids import ModelId, NodeId
from router.port import Mesh, Upstream
from router.route import MAX_TURNS, TRIES, Tries

BUSY = CopyBusy("calls", 16)


def tries() -> Tries:
    """Nothing is asked of the mesh where copies are busy."""
    unasked: Any = pytest.fail
    return Tries(Mesh({}, *[unasked] * 8))


def copy(number: int) -> Upstream:
    return RemoteCopy(ModelId("m-1"), NodeId(f"n{number}"), f"127.0.0.1:{number}")


def test_busy_copies_are_left_out_and_cost_no_try():
    made, (busy, free) = tries(), (copy(1), copy(2))
    made.met_busy(busy, BUSY)
    assert (made.others((busy, free)), made.left) == ([free], TRIES)


def test_refusal_comes_once_all_copies_or_one_of_them_twice_were_busy():
    made, busy = tries(), copy(1)
    made.met_busy(busy, BUSY)
    with pytest.raises(CopyBusy):
        made.others((busy,))
    with pytest.raises(CopyBusy):
        made.met_busy(busy, BUSY)


def test_call_does_not_ask_busy_copies_for_ever():
    made = tries()
    for number in range(MAX_TURNS - 1):
        made.met_busy(copy(number), BUSY)
    with pytest.raises(CopyBusy):
        made.met_busy(copy(MAX_TURNS), BUSY)
