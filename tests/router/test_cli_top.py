"""`top`: what two answers of Usage, one after the other, say of the time between them."""

import pytest

from mesh.ops.metrics import COPY_MS, Histogram
from mesh.wire.pb import wml_management_pb2 as pb
from router.cli.usage import Used, between
from tests.support.cli import run
from tests.support.management import DictManagement, listening

MB = 1_000_000


def calls(*times_ms: float) -> list[int]:
    histogram = Histogram(COPY_MS)
    for time_ms in times_ms:
        histogram.observe(time_ms)
    return histogram.counts


def copy(model: str, *times_ms: float, **fields: int) -> pb.CopyUsage:
    return pb.CopyUsage(
        model=model,
        calls=calls(*times_ms),
        **({"size_bytes": MB, "requests": len(times_ms)} | fields),
    )


def node(name: str, at_s: float, *copies: pb.CopyUsage) -> pb.NodeUsage:
    used = sum(each.size_bytes for each in copies)
    return pb.NodeUsage(
        node=name, monotonic_s=at_s, used_bytes=used, capacity_bytes=10 * MB, copies=copies
    )


def answer(*nodes: pb.NodeUsage, **fields: list[str]) -> pb.UsageResponse:
    return pb.UsageResponse(nodes=nodes, **fields)


def test_only_what_came_between_counts_over_the_time_of_the_nodes_own_clock():
    before = answer(node("n1", 100.0, copy("m", 900.0, 900.0)))
    after = answer(node("n1", 104.0, copy("m", 900.0, 900.0, 2.0, 2.0, 2.0, 2.0)))
    usage = between(before, after)
    for used in (usage.nodes[0], usage.models[0]):
        assert used.rps == 1.0
        assert sum(used.calls) == 4
        assert 2.0 <= used.p99_ms <= 2.4


def test_model_is_the_sum_of_its_copies_and_a_node_that_of_what_it_holds():
    before = answer(node("n1", 0.0, copy("a"), copy("b")), node("n2", 500.0, copy("a")))
    after = answer(
        node("n1", 2.0, copy("a", *[1.0] * 4, in_flight=1), copy("b", *[50.0] * 2)),
        node("n2", 502.0, copy("a", *[1.0] * 6, in_flight=2)),
    )
    usage = between(before, after)
    assert [(it.name, it.rps, it.copies, it.in_flight) for it in usage.nodes] == [
        ("n1", 3.0, 2, 1),
        ("n2", 3.0, 1, 2),
    ]
    assert [(it.name, it.rps, it.copies, it.used_bytes) for it in usage.models] == [
        ("a", 5.0, 2, 2 * MB),
        ("b", 1.0, 1, MB),
    ]
    first, second = usage.nodes
    assert first.p99_ms >= 50.0 > second.p99_ms


def test_models_that_are_used_alike_come_by_their_memory_then_by_name():
    copies = [copy("z"), copy("a"), copy("large", size_bytes=2 * MB)]
    usage = between(answer(), answer(node("n1", 2.0, *copies)))
    assert [it.name for it in usage.models] == ["large", "a", "z"]


def test_copy_that_was_loaded_anew_meanwhile_counts_from_nothing():
    before = answer(node("n1", 0.0, copy("m", *[1.0] * 9)))
    usage = between(before, answer(node("n1", 1.0, copy("m", 7.0, 7.0))))
    assert usage.models[0].rps == 2.0
    assert usage.models[0].p99_ms >= 7.0


def test_of_a_node_that_is_new_only_the_memory_is_known():
    usage = between(answer(), answer(node("n1", 5.0, copy("m", 1.0))))
    assert (usage.nodes[0].rps, usage.nodes[0].p99_ms, usage.nodes[0].used_bytes) == (0.0, None, MB)


@pytest.mark.parametrize("slow", [1, 2])
def test_p99_leaves_out_one_call_of_a_hundred(slow):
    used = Used("m", calls=calls(*[1.0] * (100 - slow), *[400.0] * slow))
    low, high = (1.0, 1.2) if slow == 1 else (400.0, 480.0)
    assert low <= used.p99_ms <= high


@pytest.mark.parametrize("time_ms", [0.01, 0.3, 1.0, 17.0, 4_000.0, 200_000.0])
def test_p99_is_rounded_up_by_a_fifth_at_most(time_ms):
    p99_ms = Used("m", calls=calls(time_ms)).p99_ms
    assert time_ms <= p99_ms <= max(0.25, time_ms * 1.2001)


def test_p99_above_all_bounds_is_not_a_number():
    assert Used("m", calls=calls(10_000_000.0)).p99_ms == float("inf")


BEFORE = answer(node("n1", 0.0, copy("a"), copy("b"), copy("c")))
AFTER = answer(
    node("n1", 2.0, copy("a", 3.0), copy("b", *[40.0] * 4, in_flight=2), copy("c")),
    unreachable=["n2"],
)


def shown(*words: str) -> tuple[list[str], DictManagement]:
    management = DictManagement(usages=[BEFORE, AFTER])
    with listening(management) as server:
        result = run("top", "--once", "--interval", "0.1", *words, server=server)
    assert (result.exit_code, result.stderr) == (0, "")
    return [" ".join(line.split()) for line in result.stdout.splitlines()], management


def test_once_prints_one_table_of_nodes_and_one_of_models():
    lines, management = shown()
    assert lines == [
        "NODE RPS P99 BUSY COPIES USED CAPACITY",
        "n1 2.5 41 ms 2 3 3.0 MB 10 MB",
        "n2 does not answer",
        "",
        "MODEL RPS P99 BUSY COPIES MEMORY",
        "b 2.0 41 ms 2 1 1.0 MB",
        "a 0.5 3.2 ms 0 1 1.0 MB",
        "c 0.0 <none> 0 1 1.0 MB",
    ]
    assert len(management.calls) == 2


def test_most_used_models_are_shown_and_the_others_counted():
    lines, _ = shown("--models", "1")
    assert [line.split()[0] for line in lines[5:6]] == ["b"]
    assert lines[-1] == "and 2 more"
    assert "more" not in shown("--models", "0")[0][-1]


def test_refreshing_goes_on_with_the_last_answer_until_the_server_is_gone():
    """Each table counts from the one before: what is used no more falls to nothing."""
    management = DictManagement(usages=[BEFORE, AFTER, AFTER])
    with listening(management) as server:
        result = run("top", "--interval", "0.1", server=server)
    assert result.exit_code == 1
    rows = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("n1")]
    assert rows == [["n1", "2.5"], ["n1", "0.0"]]
    assert "\x1b" not in result.stdout


def test_name_of_a_model_cannot_move_the_cursor():
    # Who registers models by the mmesh service chooses their ids.
    usage = answer(node("n1", 0.0, copy("m\x1b[2J")))
    with listening(DictManagement(usages=[usage, usage])) as server:
        result = run("top", "--once", "--interval", "0.1", server=server)
    assert "m?[2J" in result.stdout


def test_server_that_is_not_there_is_said():
    result = run("top", "--once", server="127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is wml-serving serve running?" in result.stderr
