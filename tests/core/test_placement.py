"""Placement: each verdict, then what holds for any nodes and copies."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mesh.core.errors import (
    MeshError,
    ModelLoadFailed,
    NoCapacity,
    NoSupportingRuntime,
    RuntimeNotRecognized,
    Unavailable,
)
from mesh.core.ids import NodeId, RuntimeName
from mesh.core.placement import (
    FAILURE_MEMORY_S,
    MAX_FAILED_NODES,
    Constraint,
    Load,
    Question,
    Refuse,
    Serve,
    Wait,
    decide,
    is_failure_expired,
    remembered_failures,
)
from mesh.core.records import CopyState, NodeState
from mesh.core.spec import ModelType
from tests.support.builders import RUNTIME, SKLEARN, copy, model_of, node, runtime_record, source

MODEL = model_of("p")
NOW = 10_000.0
OLD_S = NOW - FAILURE_MEMORY_S
LOADED, LOADING, UNLOADING, FAILED = (
    CopyState.LOADED,
    CopyState.LOADING,
    CopyState.UNLOADING,
    CopyState.FAILED,
)


def question(nodes=(), copies=(), model=MODEL, excluded=(), **fields) -> Question:
    return Question(
        model,
        {record.node: record for record in copies},
        {record.id: record for record in nodes},
        NOW,
        frozenset(NodeId(node_id) for node_id in excluded),
        **fields,
    )


def error_of(asked: Question):
    decision = decide(asked)
    assert isinstance(decision, Refuse)
    return decision.error


def copy_on(node_id: str, state: CopyState, since_s: float = NOW, reason: str = ""):
    return copy(MODEL.id, state, node_id, since_s=since_s, reason=reason)


def test_model_with_loaded_copies_is_served_from_them():
    copies = [copy_on("n2", LOADED), copy_on("n1", LOADED), copy_on("n3", LOADING)]
    assert decide(question([node("n4")], copies)) == Serve(("n1", "n2"))


def test_model_with_a_copy_on_its_way_is_waited_for():
    assert decide(question([node("n2")], [copy_on("n1", LOADING)])) == Wait(("n1",), "loading")


def test_model_whose_only_node_unloads_it_waits():
    assert decide(question([node()], [copy_on("n1", UNLOADING)])) == Wait(("n1",), "unloading")


def test_model_that_one_node_unloads_loads_on_another():
    decision = decide(question([node("n1"), node("n2")], [copy_on("n1", UNLOADING)]))
    assert decision == Load(NodeId("n2"), {"n1": "has a copy that is Unloading"})


def test_load_goes_to_a_ready_node_with_the_most_space():
    nodes = [
        node("n1", NodeState.STARTING, capacity_bytes=900),
        node("n2", capacity_bytes=500, used_bytes=400),
        node("n3", capacity_bytes=300, used_bytes=100),
    ]
    assert decide(question(nodes)) == Load(NodeId("n3"), {})
    assert decide(question(nodes[:1])) == Load(NodeId("n1"), {})


@pytest.mark.parametrize(
    ("unfit", "verdict"),
    [
        (node("n1", NodeState.DRAINING), "draining"),
        (node("n1", NodeState.FAILING), "its runtime does not answer"),
        (node("n1", runtime=None), "has no runtime"),
        (
            node("n1", model_types=frozenset({ModelType("onnx")})),
            "its runtime mlserver-1.x does not serve sklearn",
        ),
    ],
)
def test_node_that_is_not_fit_is_passed_over_with_a_reason(unfit, verdict):
    assert decide(question([unfit, node("n2")])) == Load(NodeId("n2"), {"n1": verdict})


def test_node_that_was_tried_is_passed_over():
    decision = decide(question([node("n1"), node("n2")], excluded=["n1"]))
    assert decision == Load(NodeId("n2"), {"n1": "was tried already"})


def test_copy_on_an_excluded_node_neither_serves_nor_is_waited_for():
    for state in (LOADED, LOADING):
        decision = decide(question([node("n1")], [copy_on("n1", state)], excluded=["n1"]))
        assert isinstance(decision, Refuse)
        assert isinstance(decision.error, Unavailable)


def test_named_runtime_is_the_only_one():
    named = replace(MODEL, common_source=source(runtime="triton"))
    triton = node("n2", runtime=RuntimeName("triton"), model_types=frozenset())
    decision = decide(question([node("n1"), triton], model=named))
    assert decision == Load(NodeId("n2"), {"n1": "its runtime mlserver-1.x does not serve triton"})


def test_failed_node_is_passed_over_until_the_failure_is_forgotten():
    fresh = [copy_on("n1", FAILED, OLD_S + 1, "bad file")]
    nodes = [node("n1", capacity_bytes=900), node("n2")]
    assert decide(question(nodes, fresh)) == Load(NodeId("n2"), {"n1": "bad file"})
    old = [copy_on("n1", FAILED, OLD_S, "bad file")]
    assert decide(question(nodes, old)) == Load(NodeId("n1"), {})


def test_model_that_failed_on_three_nodes_is_not_tried_on_a_fourth():
    copies = [copy_on(f"n{n}", FAILED, NOW - n, f"bad {n}") for n in (1, 2, 3)]
    decision = decide(question([node("n4")], copies))
    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, ModelLoadFailed)
    assert (decision.error.cause, decision.error.node) == ("bad 1", "n1")
    assert decide(question([node("n4")], copies[1:])) == Load(NodeId("n4"), {})


@pytest.mark.parametrize(
    ("nodes", "model", "kind"),
    [
        ([], MODEL, NoSupportingRuntime),
        ([node(runtime=None)], MODEL, NoSupportingRuntime),
        ([node()], model_of("p", type_name="pytorch"), NoSupportingRuntime),
        ([node()], replace(MODEL, common_source=source(runtime="no")), RuntimeNotRecognized),
        ([node("n1", NodeState.DRAINING)], MODEL, Unavailable),
        ([node("n1", NodeState.FAILING)], MODEL, Unavailable),
    ],
)
def test_refusal_says_what_is_missing(nodes, model, kind):
    decision = decide(question(nodes, model=model))
    assert isinstance(decision, Refuse)
    assert isinstance(decision.error, kind)


def test_failure_without_a_reason_counts_too():
    assert decide(question([node("n1"), node("n2")], [copy_on("n1", FAILED)])) == Load(
        NodeId("n2"), {"n1": "failed"}
    )


THREE = [copy_on(f"n{n}", FAILED, NOW - n, f"bad {n}") for n in (1, 2, 3)]


def test_node_that_comes_after_three_failures_is_tried():
    old, new = node("n4", joined_s=NOW - 1), node("n5", joined_s=NOW - 0.5)
    assert decide(question([old, new], THREE)) == Load(NodeId("n5"), {})
    assert isinstance(error_of(question([old], THREE)), ModelLoadFailed)


def test_node_that_restarts_after_three_failures_is_not_new():
    reborn = node("n4", address="10.0.0.4", joined_s=NOW)
    asked = question([reborn], THREE, first_seen_s={"10.0.0.4": NOW - 100})
    assert isinstance(error_of(asked), ModelLoadFailed)
    assert isinstance(decide(replace(asked, first_seen_s={"10.0.0.9": NOW - 100})), Load)


def test_failures_of_nodes_that_are_gone_count():
    lost = {"10.0.0.3": NOW - 3, "10.0.0.8": OLD_S}
    nodes = [node("n4", address="10.0.0.3", joined_s=NOW), node("n5"), node("n6", address="x")]
    asked = question(nodes, THREE[:1], lost_failures=lost)
    decision = decide(asked)
    assert isinstance(decision, Load)
    assert decision.reasons == {"n4": "failed before the node restarted"}
    assert isinstance(error_of(replace(asked, copies=question((), THREE[:2]).copies)), MeshError)


def test_model_that_was_too_large_for_three_is_tried_where_it_fits():
    small = [node(f"n{n}", capacity_bytes=50) for n in (1, 2, 3, 4)]
    large = node("n5", capacity_bytes=90)
    failed = [replace(record, size_bytes=80) for record in THREE]
    decision = decide(question([*small, large], failed))
    assert isinstance(decision, Load)
    assert decision.node == "n5"
    assert isinstance(error_of(question(small, failed)), ModelLoadFailed)
    others = [replace(record, size_bytes=40) for record in failed[:2]] + failed[2:]
    assert isinstance(decide(question([*small, large], others)), Load)
    others = [replace(record, size_bytes=40) for record in failed]
    assert isinstance(error_of(question([*small, large], others)), ModelLoadFailed)


def test_model_that_may_only_fill_takes_free_room_or_none():
    nodes = [node("n1", capacity_bytes=50, used_bytes=41), node("n2", used_bytes=91)]
    asked = question(nodes, size_bytes=9, fill=True)
    assert decide(asked) == Load(NodeId("n1"), {})
    error = error_of(replace(asked, size_bytes=10))
    assert isinstance(error, NoCapacity)
    assert "so much free" in error.message
    assert isinstance(decide(replace(asked, size_bytes=10, fill=False)), Load)


def test_model_of_unknown_size_is_thought_to_take_a_megabyte():
    small, large = node("n1", capacity_bytes=999_999), node("n2", capacity_bytes=1_000_000)
    assert decide(question([small, large], fill=True)) == Load(NodeId("n2"), {"n1": "no free room"})


def test_extra_copy_goes_beside_those_that_are_loaded():
    copies = [copy_on("n1", LOADED)]
    asked = question([node("n1"), node("n2")], copies, extra=True)
    assert decide(asked) == Load(NodeId("n2"), {"n1": "has a copy that is Loaded"})
    waiting = question([node("n3")], [*copies, copy_on("n2", LOADING)], extra=True)
    assert decide(waiting) == Wait(("n2",), "loading")


def test_extra_copy_that_no_node_is_left_for_is_no_failure_of_the_model():
    for state in (LOADED, UNLOADING):
        error = error_of(question([node("n1")], [copy_on("n1", state)], extra=True))
        assert isinstance(error, NoCapacity)
        assert "another copy" in error.message


def test_extra_copy_that_only_fills_leaves_a_tenth_of_the_node_free():
    nodes = [node("n1", capacity_bytes=100, used_bytes=81)]
    asked = question(nodes, size_bytes=10, fill=True, extra=True)
    assert isinstance(error_of(asked), NoCapacity)
    assert isinstance(decide(replace(asked, extra=False)), Load)
    assert isinstance(decide(replace(asked, size_bytes=9)), Load)


def test_extra_copy_goes_to_the_zone_that_has_fewest():
    nodes = [node(f"n{n}", zone="ab"[n // 3]) for n in range(6)]
    copies = [copy_on("n0", LOADED), copy_on("gone", LOADED)]
    decision = decide(question(nodes, copies, extra=True))
    assert isinstance(decision, Load)
    assert decision.node in ("n3", "n4", "n5")


@pytest.mark.parametrize("key", ["sklearn:0", "sklearn", "_default"])
def test_required_labels_are_those_of_the_model_type(key):
    model = replace(MODEL, common_source=replace(MODEL.source, type=SKLEARN))
    asked = question(
        [node("n1", labels=frozenset("a")), node("n2", labels=frozenset("abc"))],
        model=model,
        constraints={key: Constraint(required=frozenset("abc"))},
    )
    assert decide(asked) == Load(NodeId("n2"), {"n1": "lacks the labels b, c"})
    assert isinstance(error_of(replace(asked, excluded=frozenset({"n2"}))), Unavailable)
    others = {"onnx": Constraint(required=frozenset("x"))}
    assert isinstance(decide(replace(asked, constraints=others)), Load)


def test_preferred_labels_decide_between_nodes_that_are_fit():
    nodes = [node(f"n{n}", labels=frozenset("ab"[: n // 2])) for n in range(5)]
    constraints = {"sklearn": Constraint(preferred=frozenset("ab"))}
    assert decide(question(nodes, constraints=constraints)) == Load(NodeId("n4"), {})


def test_failures_that_count_come_latest_first():
    copies = [
        copy_on("n1", FAILED, OLD_S),
        copy_on("n3", FAILED, NOW - 5),
        copy_on("n2", FAILED, NOW - 5),
        copy_on("n4", FAILED, NOW),
        copy_on("n5", LOADED, NOW),
    ]
    assert [c.node for c in remembered_failures(copies, now=NOW)] == ["n4", "n2", "n3"]


def test_failure_is_remembered_for_a_quarter_of_an_hour():
    assert not is_failure_expired(0.0, FAILURE_MEMORY_S - 1)
    assert is_failure_expired(0.0, FAILURE_MEMORY_S)


NODE_IDS = [f"n{n}" for n in range(6)]


@st.composite
def questions(draw) -> Question:
    nodes = []
    times_s = st.sampled_from([OLD_S - 1, OLD_S, OLD_S + 1, NOW])
    for node_id in draw(st.lists(st.sampled_from(NODE_IDS), unique=True)):
        fields = {
            "runtime": draw(st.sampled_from([None, "mlserver-1.x", "triton"])),
            "model_types": draw(
                st.frozensets(st.sampled_from([SKLEARN, ModelType("onnx")]), max_size=2)
            ),
            "capacity_bytes": draw(st.integers(0, 3)),
            "used_bytes": draw(st.integers(0, 3)),
            "zone": draw(st.sampled_from("ab")),
            "labels": draw(st.frozensets(st.sampled_from("xy"))),
            "loading": draw(st.integers(0, 9)),
            "rps": draw(st.sampled_from([0.0, 0.1, 0.2, 7.0])),
            "oldest_use_s": draw(st.sampled_from([0.0, NOW - 100])),
            "joined_s": draw(times_s),
        }
        nodes.append(node(node_id, draw(st.sampled_from(NodeState)), **fields))
    copies = [
        copy_on(node_id, draw(st.sampled_from(CopyState)), draw(times_s), "bad")
        for node_id in draw(st.lists(st.sampled_from(NODE_IDS), unique=True, max_size=4))
    ]
    named = draw(st.sampled_from([None, "triton"]))
    model = replace(MODEL, common_source=source(runtime=named))
    labels = st.frozensets(st.sampled_from("xy"), max_size=1)
    return question(
        nodes,
        copies,
        model,
        draw(st.lists(st.sampled_from(NODE_IDS), max_size=2)),
        size_bytes=draw(st.integers(0, 4)),
        fill=draw(st.booleans()),
        extra=draw(st.booleans()),
        constraints={"sklearn": Constraint(draw(labels), draw(labels))},
        coming=dict.fromkeys(NODE_IDS, draw(st.integers(0, 3))).__getitem__,
    )


def has_room(record, asked: Question) -> bool:
    size_bytes = asked.size_bytes or 1_000_000
    unseen = max(0, asked.coming(record.id) - record.loading)
    free_bytes = record.capacity_bytes - record.used_bytes - unseen * size_bytes
    return free_bytes - size_bytes >= (0.1 * record.capacity_bytes if asked.extra else 0)


def is_fit(node_id: NodeId, asked: Question) -> bool:
    """The specification of a node on which the model may be loaded."""
    record, there = asked.nodes[node_id], asked.copies.get(node_id)
    wanted = asked.model.source
    if record.runtime is None or node_id in asked.excluded:
        return False
    if record.state in (NodeState.DRAINING, NodeState.FAILING):
        return False
    if there is not None and (there.state is not FAILED or there.since_s > OLD_S):
        return False
    if not asked.constraints["sklearn"].required <= record.labels:
        return False
    if asked.fill and not has_room(record, asked):
        return False
    if wanted.runtime is not None:
        return record.runtime == wanted.runtime
    return SKLEARN in record.model_types


def said(decision) -> object:
    """A decision, comparable: errors are not equal to their like."""
    if isinstance(decision, Refuse):
        return type(decision.error), decision.error.message, decision.error.details
    return decision


@settings(max_examples=50)
@given(questions(), st.randoms(use_true_random=False))
def test_decision_does_not_depend_on_the_order_of_input(asked, random):
    nodes, copies = list(asked.nodes.items()), list(asked.copies.items())
    random.shuffle(nodes)
    random.shuffle(copies)
    shuffled = replace(asked, nodes=dict(nodes), copies=dict(copies))
    assert said(decide(shuffled)) == said(decide(asked))


@settings(max_examples=50)
@given(questions())
def test_decision_never_loads_on_an_unfit_node_and_finds_a_fit_one(asked):
    decision = decide(asked)
    fit = {node_id for node_id in asked.nodes if is_fit(node_id, asked)}
    here = {c.state for c in asked.copies.values() if c.node not in asked.excluded}
    failures = [c for c in asked.copies.values() if c.state is FAILED and c.since_s > OLD_S]
    if len(failures) >= MAX_FAILED_NODES:
        last_s = max(failure.since_s for failure in failures)
        allowed = {node_id for node_id in fit if asked.nodes[node_id].joined_s > last_s}
    else:
        allowed = fit
    if LOADED in here and not asked.extra:
        assert isinstance(decision, Serve)
    elif LOADING in here:
        assert isinstance(decision, Wait)
    elif allowed:
        assert isinstance(decision, Load)
        assert decision.node in allowed
        assert decision.reasons.keys() == asked.nodes.keys() - fit
        assert all(decision.reasons.values())
    elif UNLOADING in here and not asked.extra:
        assert isinstance(decision, Wait)
    else:
        assert isinstance(decision, Refuse)


@settings(max_examples=50)
@given(questions(), st.integers(0, 3))
def test_extra_free_node_never_turns_a_choice_into_a_refusal(asked, capacity_bytes):
    assume(not isinstance(decide(asked), Refuse))
    runtime = asked.model.source.runtime or "mlserver-1.x"
    extra = node("extra", runtime=runtime, capacity_bytes=capacity_bytes)
    coming = {**{node_id: asked.coming(node_id) for node_id in NODE_IDS}, extra.id: 0}
    more = replace(asked, nodes={**asked.nodes, extra.id: extra}, coming=coming.__getitem__)
    assert not isinstance(decide(more), Refuse)


@settings(max_examples=50)
@given(questions())
def test_extra_free_node_ends_a_refusal_that_is_not_of_the_model(asked):
    runtime = asked.model.source.runtime or "mlserver-1.x"
    extra = node("extra", runtime=runtime, capacity_bytes=2_000_000, labels=frozenset("xy"))
    asked = replace(asked, coming=lambda _: 0)
    decision = decide(replace(asked, nodes={**asked.nodes, extra.id: extra}))
    if isinstance(decision, Refuse):
        assert isinstance(decision.error, ModelLoadFailed)


def runtimes(*names: str):
    return {RuntimeName(name): runtime_record(name) for name in names}


@pytest.mark.parametrize(
    ("nodes", "excluded"),
    [
        ([], ()),
        ([node("n1", runtime=None)], ()),
        ([node("n1", runtime=RuntimeName("x"), model_types=frozenset())], ()),
        ([node("n1", NodeState.DRAINING)], ()),
        ([node("n1")], ("n1",)),
    ],
)
def test_model_whose_runtimes_have_no_node_waits_for_one_of_them(nodes, excluded):
    known = runtimes("b", "a")
    for fill in (False, True):
        asked = question(nodes, excluded=excluded, runtimes=known, fill=fill)
        assert decide(asked) == Wait((), "its runtime has no node", (RuntimeName("a"), "b"))


def test_model_for_a_named_runtime_waits_for_that_one_alone():
    model = replace(MODEL, common_source=source(runtime="b"))
    asked = question(model=model, runtimes=runtimes("a", "b"))
    assert decide(asked) == Wait((), "its runtime has no node", (RuntimeName("b"),))
    other = question([node("n1")], model=model, runtimes=runtimes("a"))
    assert isinstance(error_of(other), RuntimeNotRecognized)


def test_runtime_that_supports_another_type_is_not_waited_for():
    model = replace(MODEL, common_source=source(type_name="onnx"))
    error = error_of(question(model=model, runtimes=runtimes("a")))
    assert isinstance(error, NoSupportingRuntime)


def test_runtime_with_a_node_that_is_there_is_not_waited_for():
    for state in (NodeState.STARTING, NodeState.READY):
        assert isinstance(decide(question([node("n1", state)], runtimes=runtimes("a"))), Load)
    failing = question([node("n1", NodeState.FAILING)], runtimes=runtimes(RUNTIME.name))
    assert isinstance(error_of(failing), Unavailable)


def test_model_that_failed_and_one_more_copy_wait_for_no_runtime():
    draining = [node("n1", NodeState.DRAINING)]
    failed = question(draining, [copy_on("n1", FAILED, reason="bad")], runtimes=runtimes("a"))
    assert isinstance(error_of(failed), ModelLoadFailed)
    loaded = question(draining, [copy_on("n1", LOADED)], runtimes=runtimes("a"), extra=True)
    assert isinstance(error_of(loaded), NoCapacity)
