"""What happened to a Predictor, as the view tells it, and as a node that runs does."""

import asyncio

import pytest

from mesh.agent.history import MAX_ENTRIES, History
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.records import CopyState, Predictor
from mesh.core.view import View
from mesh.runtime.port import Progress
from tests.support.builders import copy, model_of, node, predictor
from tests.support.engine import engine, until
from tests.support.fake_runtime import MB, FakeRuntime

P = PredictorName("p")
LOADING, LOADED, UNLOADING, FAILED = (
    CopyState.LOADING,
    CopyState.LOADED,
    CopyState.UNLOADING,
    CopyState.FAILED,
)


class Story:
    """A history over a view of its own; `now` is 100 s."""

    def __init__(self) -> None:
        self.view = View()
        self.history = History(self.view, lambda: 100.0)

    def sees(self, *records) -> None:
        for record in records:
            if isinstance(record, Predictor):
                self.history.keep(record.name)
            for name in self.view.put(record):
                self.history.look(name)

    def loses(self, model: str, node_id: str = "n1") -> None:
        for name in self.view.drop_copy(ModelId(model), NodeId(node_id)):
            self.history.look(name)

    @property
    def words(self) -> list[str]:
        return [entry.what for entry in self.history.of(P)]


def test_creation_has_the_predictors_own_time():
    story = Story()
    story.sees(predictor("p", created_s=7.0))
    (entry,) = story.history.of(P)
    assert (entry.time_s, entry.what, entry.model) == (7.0, "Created", "p-1")


def test_load_is_told_with_its_node_and_the_time_of_each_state():
    story = Story()
    story.sees(predictor("p"), copy("p-1", LOADING, since_s=3.0), copy("p-1", LOADED, since_s=9.0))
    _, loading, loaded = story.history.of(P)
    assert (loading.what, loading.time_s, loading.node) == ("Loading", 3.0, "n1")
    assert (loaded.what, loaded.time_s, loaded.model) == ("Loaded", 9.0, "p-1")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (LOADED, UNLOADING, "Evicted"),
        (UNLOADING, None, "Unloaded"),
        (LOADED, None, "Lost"),
        (LOADING, None, "Deferred"),
        (FAILED, None, "Forgiven"),
        (FAILED, LOADING, "Loading"),
        (LOADING, UNLOADING, None),
        (LOADED, LOADED, None),
    ],
)
def test_move_of_a_copy_has_its_word(before, after, told):
    story = Story()
    story.sees(predictor("p"), copy("p-1", before))
    known = len(story.words)
    if after is None:
        story.loses("p-1")
    else:
        story.sees(copy("p-1", after, since_s=5.0))
    assert story.words[known:] == ([] if told is None else [told])


def test_failure_is_told_with_its_reason_which_is_cut_short():
    story = Story()
    story.sees(predictor("p"), copy("p-1", FAILED, reason="no such file " + 1000 * "x"))
    message = story.history.of(P)[-1].message
    assert message.startswith("no such file")
    assert len(message) == 300


def test_change_of_the_model_is_configured_and_then_switched():
    story = Story()
    story.sees(predictor("p", "p-1", served=True), copy("p-1", LOADED))
    story.sees(predictor("p", "p-1", "p-2", served=True, generation=2))
    story.sees(copy("p-2", LOADING), copy("p-2", LOADED))
    story.sees(predictor("p", "p-2", served=True, generation=2))
    assert story.words[2:] == ["Configured", "Loading", "Loaded", "Switched"]
    assert "in place of p-1" in story.history.of(P)[-1].message
    assert story.history.of(P)[-1].model == "p-2"


def test_model_that_never_served_is_replaced_without_a_switch():
    story = Story()
    story.sees(predictor("p", "p-1"), predictor("p", "p-2", generation=2))
    assert story.words == ["Created", "Configured"]
    assert story.history.of(P)[-1].time_s == 100.0


def test_change_of_copies_alone_says_that_the_model_stays():
    story = Story()
    story.sees(predictor("p"), predictor("p", generation=2, spec='{"minCopies":2}'))
    assert story.history.of(P)[-1].message == "the model stays the same"


def test_becoming_served_is_no_event_of_its_own():
    story = Story()
    story.sees(predictor("p"), predictor("p", served=True))
    assert story.words == ["Created"]


def test_copies_on_two_nodes_are_told_apart():
    story = Story()
    story.sees(predictor("p"), copy("p-1", LOADED), copy("p-1", LOADED, node="n2"))
    story.loses("p-1", "n2")
    assert [(entry.what, entry.node) for entry in story.history.of(P)[1:]] == [
        ("Loaded", "n1"),
        ("Loaded", "n2"),
        ("Lost", "n2"),
    ]


def test_model_that_no_runtime_serves_has_failed_once():
    story = Story()
    model = model_of("p", type_name="pytorch")
    record = predictor("p", model.id)
    story.sees(node(), record, model, record, model)
    assert story.words == ["Created", "Failed"]
    (_, failed) = story.history.of(P)
    assert "No ServingRuntime supports" in failed.message
    assert failed.count == 1


def test_history_holds_the_last_entries_alone():
    story = Story()
    story.sees(predictor("p"))
    for moment in range(MAX_ENTRIES + 5):
        story.sees(copy("p-1", LOADED, node=f"n{moment}"))
    assert len(story.words) == MAX_ENTRIES
    assert story.history.of(P)[0].node == "n5"
    assert story.history.of(P)[-1].node == f"n{MAX_ENTRIES + 4}"


def test_what_happens_again_counts_and_moves_to_the_end():
    story = Story()
    story.sees(predictor("p"))
    for moment in range(3):
        story.sees(copy("p-1", LOADED, since_s=float(moment)))
        story.loses("p-1")
    assert story.words == ["Created", "Loaded", "Lost"]
    _, loaded, lost = story.history.of(P)
    assert (loaded.count, loaded.first_s, loaded.time_s) == (3, 0.0, 2.0)
    assert (lost.count, lost.first_s) == (3, 100.0)
    story.sees(copy("p-1", LOADED, since_s=9.0))
    assert story.words == ["Created", "Lost", "Loaded"]


def test_history_goes_with_its_predictor_and_begins_again():
    story = Story()
    story.sees(predictor("p"), copy("p-1", LOADED))
    for name in story.view.drop_predictor(P):
        story.history.look(name)
    assert story.history.of(P) == ()
    story.sees(predictor("p", created_s=8.0))
    assert story.words == ["Created", "Loaded"]  # the copy is there still
    story.sees(predictor("p", created_s=9.0))
    assert story.history.of(P)[0].time_s == 9.0


async def test_node_tells_of_eviction_and_of_the_load_that_follows():
    async with engine(FakeRuntime(capacity_bytes=MB)) as e:
        await e.apply("p")
        await e.ask("p")
        await e.apply("q", "b")
        await e.ask("q")
        await until(lambda: e.node.history.of(P)[-1].what == "Unloaded")
        await e.ask("p")
        told = [entry.what for entry in e.node.history.of(P)]
        assert told == ["Created", "Evicted", "Unloaded", "Loading", "Loaded"]
        assert e.node.history.of(P)[-1].count == 2
        times = [entry.time_s for entry in e.node.history.of(P)]
        assert times == sorted(times)


async def test_node_tells_of_a_target_that_fails_and_forgets_the_deleted():
    async with engine(FakeRuntime(failures={"bad": "no such object"})) as e:
        await e.apply("p")
        await e.ask("p")
        await e.apply("p", "bad")
        await e.reaches("p", "Loaded Failed BlockedByFailedLoad")
        *_, configured, loading, failed = e.node.history.of(P)
        assert [configured.what, loading.what] == ["Configured", "Loading"]
        assert (failed.what, failed.message) == ("Failed", "no such object")
        await e.delete("p")
        assert e.node.history.of(P) == ()


async def test_progress_is_kept_while_a_model_loads_and_told_to_listeners():
    gate = asyncio.Event()
    heard: list[frozenset[str]] = []
    async with engine(FakeRuntime(gates={"a": gate})) as e:
        model = await e.apply("p")
        await until(lambda: e.runtime.loads)
        e.node.listeners.add(heard.append)
        progress = Progress(model, "pulling", 3, 12)
        e.runtime.tell(Progress(ModelId("unknown"), "pulling", 1, 2))
        e.runtime.tell(progress)
        await until(lambda: heard)
        copy_here = e.node.copy(model)
        assert copy_here is not None
        assert heard == [frozenset({"p"})]
        assert copy_here.progress == progress
        gate.set()
        await e.reaches("p", "Loaded - UpToDate")
        assert copy_here.progress is None
        e.runtime.tell(progress)
        await e.settle()
        assert copy_here.progress is None
