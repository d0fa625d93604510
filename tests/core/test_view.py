"""The view: any order of records, against one that recomputes everything from a plain list."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    NodeState,
    Predictor,
    RuntimeRecord,
    RuntimeWish,
)
from mesh.core.view import View
from tests.support.builders import SKLEARN, copy, model_of, node, predictor, runtime_record

PREDICTORS = st.sampled_from([PredictorName(name) for name in "pqr"])
MODELS = st.sampled_from([ModelId(model) for model in ("p-1", "p-2", "q-1")])
NODES = st.sampled_from([NodeId("n1"), NodeId("n2")])


def test_put_says_which_predictors_a_record_concerns():
    view = View()
    model = model_of("p")
    assert view.put(model) == frozenset()
    assert view.put(predictor("p", active=model.id)) == {"p"}
    assert view.put(model) == {"p"}
    assert view.put(copy(model.id, CopyState.LOADED)) == {"p"}
    assert view.put(node()) == frozenset()


def test_predictor_that_moves_on_is_no_longer_named_by_its_old_model():
    view = View()
    view.put(predictor("p", active="p-1", target="p-2"))
    assert view.names(ModelId("p-2")) == {"p"}
    view.put(predictor("p", active="p-2"))
    assert view.names(ModelId("p-1")) == frozenset()
    assert view.drop_copy(ModelId("p-2"), NodeId("n1")) == {"p"}
    assert view.drop_model(ModelId("p-2")) == {"p"}


def test_readers_are_told_of_each_change_once_it_is_made():
    view, told = View(), []
    first, second = copy("p-1", CopyState.LOADED), copy("p-2", CopyState.FAILED, "n2")

    def read(kind, key):
        told.append((kind, *key, len(list(view.every_copy()))))

    view.readers.add(read)
    for record in (predictor("p"), model_of("p"), first, second, node()):
        view.put(record)
    view.drop_copy(first.model, first.node)
    view.drop_node(NodeId("n1"))
    view.drop_model(model_of("p").id)
    view.drop_predictor(PredictorName("p"))
    view.readers.discard(read)
    view.drop_copy(second.model, second.node)
    assert told == [
        (Predictor, "p", 0),
        (BackingModel, model_of("p").id, 0),
        (CopyRecord, "p-1", "n1", 1),
        (CopyRecord, "p-2", "n2", 2),
        (NodeRecord, "n1", 2),
        (CopyRecord, "p-1", "n1", 1),
        (NodeRecord, "n1", 1),
        (BackingModel, model_of("p").id, 1),
        (Predictor, "p", 1),
    ]


def served(view: View, name: str, state: CopyState | None = None) -> BackingModel:
    model = model_of(name)
    view.put(model)
    view.put(predictor(name, active=model.id))
    if state is not None:
        view.put(copy(model.id, state))
    return model


def test_node_concerns_predictors_of_a_known_runtime_when_it_is_the_first_or_last_in_its_state():
    view = View()
    served(view, "p")
    served(view, "q", CopyState.LOADING)
    served(view, "loaded", CopyState.LOADED)
    view.put(node("n1"))
    assert view.drop_node(NodeId("n1")) == frozenset()  # nobody says which runtimes there are
    assert view.put(runtime_record()) == {"p", "q"}
    assert view.put(node("n1")) == {"p", "q"}
    assert view.put(node("n1", used_bytes=5)) == frozenset()
    assert view.put(node("n2")) == frozenset()
    assert view.put(node("n2", NodeState.DRAINING)) == {"p", "q"}
    assert view.drop_node(NodeId("n1")) == {"p", "q"}
    assert view.drop_node(NodeId("n1")) == frozenset()
    assert view.put(node("r", runtime=None)) == frozenset()
    other = node("n3", runtime=RuntimeName("x"), model_types=frozenset())
    assert view.put(other) == frozenset()


def test_runtime_concerns_the_predictors_that_it_supports_now_or_did():
    view = View()
    served(view, "p")
    record = runtime_record()
    assert view.put(record) == {"p"}
    assert view.runtimes == {record.name: record}
    without = RuntimeRecord(record.name, record.state)
    assert view.put(without) == {"p"}
    assert view.put(without) == frozenset()
    assert view.drop_runtime(record.name) == frozenset()
    view.put(record)
    assert view.drop_runtime(record.name) == {"p"}
    assert (view.drop_runtime(record.name), view.runtimes) == (frozenset(), {})
    assert SKLEARN in record.model_types


def test_wish_concerns_nobody_but_who_reads_runtimes():
    view, told = View(), []
    served(view, "p")
    view.put(runtime_record())
    view.readers.add(lambda kind, key: told.append((kind, *key)))
    wish = RuntimeWish(RuntimeName("r"), 5.0)
    assert view.put(wish) == frozenset()
    assert view.wishes == {"r": wish}
    assert view.drop_wish(RuntimeName("r")) == frozenset()
    assert view.wishes == {}
    view.put(node())
    assert told == [(RuntimeWish, "r")] * 2 + [(NodeRecord, "n1"), (Predictor, "p")]


class ViewMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.view = View()
        self.predictors = {}
        self.copies = {}
        self.models = {}
        self.nodes = {}

    def named(self, model):
        return {p.name for p in self.predictors.values() if model in (p.active, p.target)}

    @rule(name=PREDICTORS, active=MODELS, coming=MODELS)
    def put_predictor(self, name, active, coming):
        record = predictor(name, active=active, target=coming)
        self.predictors[name] = record
        assert self.view.put(record) == {name}

    @rule(name=PREDICTORS)
    def drop_predictor(self, name):
        self.predictors.pop(name, None)
        assert self.view.drop_predictor(name) == {name}

    @rule(model=MODELS, node_id=NODES, state=st.sampled_from(CopyState))
    def put_copy(self, model, node_id, state):
        record = copy(model, state, node_id)
        self.copies[model, node_id] = record
        assert self.view.put(record) == self.named(model)

    @rule(model=MODELS, node_id=NODES)
    def drop_copy(self, model, node_id):
        self.copies.pop((model, node_id), None)
        assert self.view.drop_copy(model, node_id) == self.named(model)

    @rule(path=st.sampled_from("ab"))
    def put_model(self, path):
        record = model_of("p", path)
        self.models[record.id] = record
        assert self.view.put(record) == self.named(record.id)

    @rule(path=st.sampled_from("ab"))
    def drop_model(self, path):
        model = model_of("p", path).id
        self.models.pop(model, None)
        assert self.view.drop_model(model) == self.named(model)

    @rule(node_id=NODES, capacity_bytes=st.integers(0, 9))
    def put_node(self, node_id, capacity_bytes):
        record = node(node_id, capacity_bytes=capacity_bytes)
        self.nodes[node_id] = record
        assert self.view.put(record) == frozenset()

    @rule(node_id=NODES)
    def drop_node(self, node_id):
        self.nodes.pop(node_id, None)
        assert self.view.drop_node(node_id) == frozenset()

    @invariant()
    def shows_what_was_put(self):
        assert self.view.predictors == self.predictors
        assert self.view.models == self.models
        assert self.view.nodes == self.nodes
        for model in ("p-1", "p-2", "q-1"):
            copies = {n: c for (m, n), c in self.copies.items() if m == model}
            assert self.view.copies(ModelId(model)) == copies
            assert self.view.names(ModelId(model)) == self.named(model)

    @invariant()
    def keeps_nothing_of_what_is_gone(self):
        assert all(self.view._copies.values())
        assert all(self.view._other_names.values())


TestViewMachine = ViewMachine.TestCase
TestViewMachine.settings = settings(max_examples=60, stateful_step_count=30)


def test_copies_of_a_node_are_found_and_forgotten():
    view = View()
    view.put(predictor("p", "p-1"))
    view.put(copy("p-1", CopyState.LOADING, "n1"))
    view.put(copy("q-1", CopyState.LOADED, "n1"))
    view.put(copy("p-1", CopyState.LOADED, "n2"))
    assert view.held(NodeId("n1")) == {"p-1", "q-1"}
    assert (view.loading(NodeId("n1")), view.loading(NodeId("n2"))) == (1, 0)
    assert view.names_on(NodeId("n1")) == {"p"}
    view.put(copy("p-1", CopyState.FAILED, "n1"))
    assert view.loading(NodeId("n1")) == 0
    view.drop_copy(ModelId("p-1"), NodeId("n1"))
    view.drop_copy(ModelId("q-1"), NodeId("n1"))
    view.drop_copy(ModelId("q-1"), NodeId("n1"))
    assert view.held(NodeId("n1")) == frozenset()
    assert view.names_on(NodeId("n1")) == frozenset()
