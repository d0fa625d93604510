"""The order of nodes: each sorter by one example, and what keeps many from choosing the same."""

from collections import Counter

import pytest

from mesh.core.ids import ModelId, NodeId
from mesh.core.placement_order import BACKLOG, SORTERS, Wish, best, by_age, by_request_rate, by_room
from mesh.core.records import NodeState
from mesh.core.rendezvous import first, rendezvous
from tests.support.builders import node

NOW = 10_000.0
MIB = 1 << 20
FULL = {"used_bytes": 100 * MIB}


def wish(model: str = "m", **fields) -> Wish:
    values = {
        "model": ModelId(model),
        "size_bytes": 10 * MIB,
        "known_bytes": 0,
        "zones": {},
        "preferred": frozenset(),
        "coming": lambda _: 0,
        "now": NOW,
    }
    return Wish(**(values | fields))


def one(node_id: str, state: NodeState = NodeState.READY, **fields):
    return node(node_id, state, **({"capacity_bytes": 100 * MIB} | fields))


@pytest.mark.parametrize(
    ("better", "worse", "asked"),
    [
        (
            {"state": NodeState.STARTING},
            {"capacity_bytes": 20 * MIB},
            {"known_bytes": 30 * MIB, "size_bytes": 30 * MIB},
        ),
        ({"zone": "b", "rps": 9.0}, {"state": NodeState.STARTING}, {"zones": {"b": 5}}),
        ({"zone": "b"}, {"zone": "a", "labels": frozenset("x")}, {"zones": {"a": 2, "b": 1}}),
        ({"loading": BACKLOG, "labels": frozenset("x")}, {}, {"preferred": frozenset("x")}),
        (FULL, {"loading": BACKLOG}, {}),
        ({"loading": BACKLOG - 1}, FULL, {}),
        ({"loading": 1}, FULL | {"oldest_use_s": 1.0}, {}),
        (FULL | {"oldest_use_s": NOW - 400, "loading": 1}, FULL | {"oldest_use_s": NOW - 100}, {}),
        ({"loading": 2, "rps": 90.0}, {"loading": 4}, {}),
        ({"rps": 90.0}, {"loading": 1}, {}),
        ({"rps": 1.0, "used_bytes": 80 * MIB}, {"rps": 90.0}, {}),
        ({"used_bytes": 10 * MIB}, {"used_bytes": 60 * MIB}, {}),
    ],
)
def test_better_node_comes_first_whatever_its_hash(better, worse, asked):
    for model in ("m1", "m2", "m3", "m4", "m5", "m6"):
        nodes = [one("worse", **worse), one("better", **better)]
        assert best(nodes, wish(model, **asked)) == "better"


@pytest.mark.parametrize(
    "fields",
    [
        ({"used_bytes": 10 * MIB}, {"used_bytes": 20 * MIB}),
        (FULL | {"oldest_use_s": NOW - 1100}, FULL | {"oldest_use_s": NOW - 1200}),
        ({"loading": 2}, {"loading": 3}),
        ({"rps": 10.0}, {"rps": 15.0}),
        ({"rps": 0.0}, {"rps": 0.0}),
    ],
)
def test_nodes_that_differ_little_share_the_models(fields):
    nodes = [one(f"n{n}", **values) for n, values in enumerate(fields)]
    chosen = Counter(best(nodes, wish(f"m{n}")) for n in range(200))
    assert min(chosen["n0"], chosen["n1"]) > 60


def test_loads_that_a_node_has_not_announced_take_their_room():
    coming = {NodeId("n1"): 9, NodeId("n2"): 9}
    nodes = [one("n1", used_bytes=10 * MIB), one("n2", used_bytes=10 * MIB, loading=9)]
    asked = wish(coming=lambda node_id: coming[node_id])
    assert [asked.free_bytes(node) for node in nodes] == [0, 90 * MIB]
    assert by_room(nodes, asked) == [True, False]


def test_burst_of_creations_spreads_although_no_node_announces_anything():
    nodes = [one(f"n{n}") for n in range(3)]
    coming: Counter[NodeId] = Counter()
    for n in range(30):
        coming[best(nodes, wish(f"m{n}", coming=lambda node_id: coming[node_id]))] += 1
    assert max(coming.values()) <= 12


def test_age_says_nothing_where_there_is_room():
    nodes = [one("n1", oldest_use_s=1.0), one("n2", oldest_use_s=NOW)]
    assert by_age(nodes, wish()) == ()


def test_nodes_without_any_capacity_yet_have_an_order_too():
    nodes = [one("n1", capacity_bytes=0), one("n2", capacity_bytes=0)]
    assert best(nodes, wish(size_bytes=0)) in ("n1", "n2")


def test_other_sorters_take_the_place_of_the_rule():
    nodes = [one("n1"), one("n2", NodeState.STARTING)]
    chosen = {best(nodes, wish(f"m{n}"), ()) for n in range(20)}
    assert chosen == {"n1", "n2"}
    assert len({best(nodes, wish(f"m{n}"), SORTERS) for n in range(20)}) == 1


def test_rendezvous_is_the_same_for_any_order_of_nodes():
    nodes = [NodeId(f"n{n}") for n in range(10)]
    order = rendezvous("m", nodes)
    assert sorted(order) == sorted(nodes)
    assert rendezvous("m", reversed(nodes)) == order
    assert first("m", reversed(nodes)) == order[0]
    # A change of the function would have nodes of two versions disagree.
    assert order == ["n7", "n5", "n3", "n2", "n1", "n0", "n9", "n8", "n6", "n4"]


def test_rendezvous_keeps_the_order_of_those_that_stay():
    nodes = [NodeId(f"n{n}") for n in range(10)]
    for key in map(str, range(50)):
        order = rendezvous(key, nodes)
        assert rendezvous(key, order[1:]) == order[1:]


def test_rendezvous_gives_each_node_its_share_of_firsts():
    nodes = [NodeId(f"n{n}") for n in range(10)]
    counts = Counter(first(f"model-{n}", nodes) for n in range(10_000))
    chi_square = sum((counts[node] - 1000) ** 2 / 1000 for node in nodes)
    assert chi_square < 35  # 9 degrees of freedom: over 28 once in a thousand


def test_rendezvous_leaves_no_node_behind_another():
    """Where the first is the same, seconds are shared too: by mixing, not by neighbourhood."""
    nodes = [NodeId(f"n{n}") for n in range(5)]
    orders = [rendezvous(f"model-{n}", nodes) for n in range(10_000)]
    seconds = Counter(order[1] for order in orders if order[0] == "n0")
    assert min(seconds[node] for node in nodes[1:]) > 400


def test_order_does_not_change_with_the_order_of_nodes_by_rounding():
    """The first has one and a half times the mean, or a rounding error less."""
    nodes = [one(f"n{n}", rps=rate) for n, rate in enumerate([3.1, 2.4, 0.7])]
    forward, backward = (by_request_rate(some, wish()) for some in (nodes, nodes[::-1]))
    assert list(forward) == list(backward)[::-1]
