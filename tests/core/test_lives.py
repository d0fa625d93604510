"""What is remembered of nodes that are gone, by their addresses."""

from mesh.core.ids import ModelId
from mesh.core.lives import Lives
from mesh.core.placement import FAILURE_MEMORY_S
from mesh.core.records import CopyState
from tests.support.builders import copy, node

MODEL = ModelId("p-1")


def life(number: int, joined_s: float, address: str = "10.0.0.1:8034"):
    return node(f"n{number}", address=address, joined_s=joined_s)


def failed(since_s: float, model: str = MODEL):
    return copy(model, CopyState.FAILED, since_s=since_s, reason="bad file")


def test_address_is_as_old_as_its_first_life():
    lives = Lives()
    lives.came(life(1, 10.0))
    lives.came(life(2, 50.0))
    assert lives.first_seen_s == {"10.0.0.1:8034": 10.0}


def test_failures_outlive_the_node():
    lives = Lives()
    copies = [failed(20.0), copy("q-1", CopyState.LOADED), failed(-FAILURE_MEMORY_S, "r-1")]
    lives.went(life(1, 10.0), copies, now=30.0)
    assert lives.lost(MODEL) == {"10.0.0.1:8034": 20.0}
    assert lives.lost(ModelId("q-1")) == {}
    assert lives.lost(ModelId("r-1")) == {}
    lives.forgive(MODEL)
    assert lives.lost(MODEL) == {}


def test_node_without_an_address_is_not_remembered():
    lives = Lives()
    lives.came(life(1, 10.0, address=""))
    lives.went(life(1, 10.0, address=""), [failed(20.0)], now=30.0)
    assert (lives.first_seen_s, lives.lost(MODEL)) == ({}, {})


def test_what_is_gone_for_long_is_forgotten():
    lives = Lives()
    for number in (1, 2):
        there = life(number, 10.0, address=f"10.0.0.{number}:8034")
        lives.came(there)
        lives.went(there, [failed(10.0 * number)], now=30.0)
    lives.came(life(3, 40.0))
    lives.expire(FAILURE_MEMORY_S + 10.0)
    assert lives.lost(MODEL) == {"10.0.0.2:8034": 20.0}
    lives.expire(FAILURE_MEMORY_S + 30.0)
    assert lives.lost(MODEL) == {}
    assert lives.first_seen_s == {"10.0.0.1:8034": 10.0}
