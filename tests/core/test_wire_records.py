"""The layout of the store: what is written is read back, by this version and by its neighbours."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName, StorageKey
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    CopyState,
    NodeRecord,
    NodeState,
    Predictor,
    Record,
    RuntimeRecord,
    RuntimeState,
    RuntimeWish,
)
from mesh.core.spec import ModelSource, ModelType
from mesh.wire import records
from mesh.wire.records import Unreadable, decode, encode, key_parts
from tests.support import strategies
from tests.support.strategies import json_documents, names


def key_of(record: Record) -> str:
    match record:
        case Predictor():
            return records.predictor_key(record.name)
        case BackingModel():
            return records.model_key(record.id)
        case CopyRecord():
            return records.copy_key(record.model, record.node)
        case NodeRecord():
            return records.node_key(record.id)
        case RuntimeRecord():
            return records.runtime_key(record.name)
        case RuntimeWish():
            return records.wanted_key(record.runtime)


def changed(value: bytes, **fields) -> bytes:
    return json.dumps(json.loads(value) | fields).encode()


@given(strategies.records())
def test_record_is_read_back_as_it_was_written(record):
    assert decode(key_of(record), encode(record)) == record


@given(strategies.records(), json_documents())
def test_record_of_a_newer_version_is_read_without_what_is_new(record, extra):
    unknown = {f"new {name}": value for name, value in extra.items()}
    assert decode(key_of(record), changed(encode(record), **unknown)) == record


def test_record_of_an_older_version_has_defaults_for_what_is_missing():
    assert decode("predictors/p", b'{"name":"p","spec":"{}","active":"a","target":"b"}') == (
        Predictor(PredictorName("p"), "{}", ModelId("a"), ModelId("b"), False, 0.0, 1)
    )
    assert decode("copies/m/n", b'{"model":"m","node":"n","state":"Loaded"}') == CopyRecord(
        ModelId("m"), NodeId("n"), CopyState.LOADED, 0.0
    )
    assert decode("nodes/n", b'{"id":"n","state":"Ready"}') == NodeRecord(
        NodeId("n"), NodeState.READY
    )
    assert decode("runtimes/r", b'{"name":"r","state":"Zero"}') == RuntimeRecord(
        RuntimeName("r"), RuntimeState.ZERO
    )
    assert decode("wanted/r", b'{"runtime":"r"}') == RuntimeWish(RuntimeName("r"), 0.0)
    source = b'{"type":{"name":"t"},"path":"x","storage_key":"k"}'
    assert decode("models/m", b'{"id":"m","predictor":"p","source":%s}' % source) == BackingModel(
        ModelId("m"),
        PredictorName("p"),
        "",
        ModelSource(ModelType("t"), "x", StorageKey("k")),
    )


def test_layout_in_the_store_is_the_documented_one():
    model = BackingModel(
        ModelId("p-1"),
        PredictorName("p"),
        "{}",
        ModelSource(
            ModelType("sklearn", "0"), "x", StorageKey("k"), runtime=RuntimeName("mlserver")
        ),
    )
    assert json.loads(encode(model)) == {
        "id": "p-1",
        "predictor": "p",
        "spec": "{}",
        "source": {
            "type": {"name": "sklearn", "version": "0"},
            "path": "x",
            "storage_key": "k",
            "bucket": "",
            "schema_path": "",
            "parameters": {},
            "runtime": "mlserver",
            "key": "",
        },
        "auto_delete": True,
        "also": [],
    }
    assert key_of(model) == "models/p-1"
    assert records.predictor_key(PredictorName("p")) == "predictors/p"
    assert records.copy_key(ModelId("p-1"), NodeId("n1")) == "copies/p-1/n1"
    assert records.node_key(NodeId("n1")) == "nodes/n1"


@given(st.permutations([ModelType("a"), ModelType("b", "1"), ModelType("b", "2")]))
def test_equal_records_give_equal_bytes(types):
    node = NodeRecord(NodeId("n"), NodeState.READY, model_types=frozenset(types))
    again = NodeRecord(NodeId("n"), NodeState.READY, model_types=frozenset(reversed(types)))
    assert encode(node) == encode(again)


def test_value_that_json_does_not_know_is_a_mistake():
    with pytest.raises(TypeError, match="no JSON for set"):
        encode(NodeRecord(NodeId("n"), NodeState.READY, model_types={ModelType("a")}))


@given(names(), names())
@example("a/b", "../n1")
@example("%2F", "ö ü\x00\n")
def test_keys_quote_what_users_chose(first, second):
    copy_key = records.copy_key(ModelId(first), NodeId(second))
    assert key_parts(copy_key) == (records.COPIES, (first, second))
    assert copy_key.count("/") == 2
    assert copy_key.isascii()
    assert key_parts(records.predictor_key(PredictorName(first))) == (records.PREDICTORS, (first,))
    assert key_parts(records.model_key(ModelId(first))) == (records.MODELS, (first,))
    assert key_parts(records.node_key(NodeId(first))) == (records.NODES, (first,))


@given(st.tuples(names(), names()), st.tuples(names(), names()))
def test_keys_of_different_copies_are_different(one, other):
    first, second = (records.copy_key(ModelId(m), NodeId(n)) for m, n in (one, other))
    assert (first == second) == (one == other)


def test_key_of_a_prefix_that_this_version_does_not_know_is_no_record():
    assert decode("claims/x", b"anything") is None
    assert decode("", b"") is None


KEYS = ["predictors/p", "models/m", "copies/m/n", "nodes/n"]
SOURCE = {"type": {"name": "t"}, "path": "x", "storage_key": "k"}
MODEL = {"id": "m", "predictor": "p", "source": SOURCE}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "value", [b"", b"{", b"\xff", b"{}", b"[]", b"null", b"5", b'"text"', b"[" * 100_000]
)
def test_value_that_is_no_record_is_unreadable(key, value):
    with pytest.raises(Unreadable) as caught:
        decode(key, value)
    assert caught.value.key == key
    assert caught.value.problem
    assert str(caught.value).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("models/m", MODEL | {"source": []}),
        ("models/m", MODEL | {"source": None}),
        ("models/m", MODEL | {"source": SOURCE | {"type": "sklearn"}}),
        ("models/m", MODEL | {"source": SOURCE | {"type": []}}),
        ("copies/m/n", {"model": "m", "node": "n", "state": "Resting"}),
        ("nodes/n", {"id": "n", "state": "Ready", "model_types": 5}),
        ("nodes/n", {"id": "n", "state": "Ready", "model_types": [[]]}),
        ("nodes/n", {"id": "n", "state": "Ready", "model_types": [{"name": []}]}),
    ],
)
def test_record_with_a_field_of_the_wrong_kind_is_unreadable(key, fields):
    with pytest.raises(Unreadable):
        decode(key, json.dumps(fields).encode())


@given(st.sampled_from(KEYS), st.binary(max_size=50) | json_documents().map(json.dumps))
def test_any_value_is_a_record_or_unreadable(key, value):
    try:
        record = decode(key, value)
    except Unreadable:
        return
    assert record is not None


@given(strategies.records(), st.data())
def test_record_with_one_field_damaged_is_a_record_or_unreadable(record, data):
    fields = json.loads(encode(record))
    field = data.draw(st.sampled_from(sorted(fields)))
    value = data.draw(st.none() | st.integers() | json_documents() | st.lists(st.integers()))
    with suppress(Unreadable):
        decode(key_of(record), json.dumps(fields | {field: value}).encode())


def test_what_a_predictor_and_its_model_have_in_common_is_held_once():
    name, model = PredictorName("a-name"), ModelId("a-name-0123456789")
    predictor = Predictor(name, '{"path":"a"}', model, model, True, 1.0, 1)
    source = ModelSource(ModelType("sklearn"), "a", StorageKey("k"))
    backing = BackingModel(model, name, '{"path":"a"}', source)
    pool = records.Pool()
    first = decode(records.predictor_key(name), encode(predictor), pool)
    second = decode(records.model_key(model), encode(backing), pool)
    assert isinstance(first, Predictor)
    assert isinstance(second, BackingModel)
    assert first.active is first.target is second.id
    assert first.name is second.predictor
    assert first.spec is second.spec
    other = BackingModel(ModelId("b"), name, '{"path":"b"}', replace(source, path="b"))
    third = decode(records.model_key(other.id), encode(other), pool)
    assert isinstance(third, BackingModel)
    assert third.common_source is second.common_source
    assert second == backing
    assert (second.source, third.source) == (source, replace(source, path="b"))


@pytest.mark.parametrize("path", ["", "not/that/of/the/spec"])
def test_source_whose_path_the_spec_does_not_say_is_kept_as_it_is(path):
    source = ModelSource(ModelType("sklearn"), path, StorageKey("k"))
    model = BackingModel(ModelId("m"), PredictorName("p"), '{"storage":{"path":"a"}}', source)
    read = decode(records.model_key(model.id), encode(model))
    assert read == model
    assert read.source == source
