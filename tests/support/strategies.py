"""Hypothesis strategies for what the mesh is about."""

from typing import Any

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
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
UINT32 = st.integers(0, 2**32 - 1)
UINT64 = st.integers(0, 2**64 - 1)
# One list of numbers of a tensor: its field, and what may be in it.
CONTENTS: dict[str, st.SearchStrategy[Any]] = {
    "bool_contents": st.booleans(),
    "int_contents": INT32,
    "int64_contents": INT64,
    "uint_contents": UINT32,
    "uint64_contents": UINT64,
    "fp32_contents": st.floats(width=32, allow_nan=False),
    "fp64_contents": st.floats(allow_nan=False),
    "bytes_contents": st.binary(max_size=20),
}


def texts(min_size: int = 0) -> st.SearchStrategy[str]:
    """Any text that can be UTF-8: slashes, per cents, control characters and all."""
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=min_size, max_size=12)


def names() -> st.SearchStrategy[str]:
    return texts(min_size=1)


def times_s() -> st.SearchStrategy[float]:
    return st.floats(0, 4e9)


def sizes() -> st.SearchStrategy[int]:
    return st.integers(0, 2**50)


def json_documents() -> st.SearchStrategy[dict[str, Any]]:
    leaves = st.none() | st.booleans() | st.integers() | texts()
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(), inner),
        max_leaves=8,
    )
    return st.dictionaries(texts(), values, max_size=4)


def model_types() -> st.SearchStrategy[ModelType]:
    return st.builds(ModelType, names(), texts())


def sources() -> st.SearchStrategy[ModelSource]:
    return st.builds(
        ModelSource,
        type=model_types(),
        path=texts(),
        storage_key=texts().map(StorageKey),
        bucket=texts(),
        schema_path=texts(),
        parameters=st.dictionaries(texts(), texts(), max_size=3),
        runtime=st.none() | names().map(RuntimeName),
        key=texts(),
    )


def predictors() -> st.SearchStrategy[Predictor]:
    return st.builds(
        Predictor,
        name=names().map(PredictorName),
        spec=texts(),
        active=names().map(ModelId),
        target=names().map(ModelId),
        served=st.booleans(),
        created_s=times_s(),
        generation=st.integers(1, 2**40),
        owner=texts(),
        min_copies=st.integers(0, 2**31),
        max_copies=st.integers(0, 2**31),
    )


def backing_models() -> st.SearchStrategy[BackingModel]:
    return st.builds(
        BackingModel,
        id=names().map(ModelId),
        predictor=names().map(PredictorName),
        spec=texts(),
        common_source=sources(),
        auto_delete=st.booleans(),
        also=st.lists(names().map(PredictorName), max_size=2).map(tuple),
    )


def copy_records() -> st.SearchStrategy[CopyRecord]:
    return st.builds(
        CopyRecord,
        model=names().map(ModelId),
        node=names().map(NodeId),
        state=st.sampled_from(CopyState),
        since_s=times_s(),
        size_bytes=sizes(),
        reason=texts(),
    )


def node_records() -> st.SearchStrategy[NodeRecord]:
    return st.builds(
        NodeRecord,
        id=names().map(NodeId),
        state=st.sampled_from(NodeState),
        address=texts(),
        runtime=st.none() | names().map(RuntimeName),
        model_types=st.frozensets(model_types(), max_size=3),
        capacity_bytes=sizes(),
        used_bytes=sizes(),
        zone=texts(),
        labels=st.frozensets(texts(), max_size=3),
        loading=st.integers(0, 100),
        rps=st.floats(0, 1e6),
        oldest_use_s=st.floats(0, 1e12),
        newest_use_s=st.floats(0, 1e12),
        joined_s=st.floats(0, 1e12),
    )


def runtime_records() -> st.SearchStrategy[RuntimeRecord]:
    return st.builds(
        RuntimeRecord,
        name=names().map(RuntimeName),
        state=st.sampled_from(RuntimeState),
        since_s=times_s(),
        model_types=st.frozensets(model_types(), max_size=3),
    )


def runtime_wishes() -> st.SearchStrategy[RuntimeWish]:
    return st.builds(RuntimeWish, runtime=names().map(RuntimeName), wanted_s=times_s())


def records() -> st.SearchStrategy[Record]:
    return st.one_of(
        predictors(),
        backing_models(),
        copy_records(),
        node_records(),
        runtime_records(),
        runtime_wishes(),
    )


def _parameters() -> st.SearchStrategy[dict[str, kfs.InferParameter]]:
    parameter = st.one_of(
        st.builds(kfs.InferParameter, bool_param=st.booleans()),
        st.builds(kfs.InferParameter, int64_param=INT64),
        st.builds(kfs.InferParameter, string_param=texts()),
    )
    return st.dictionaries(texts(), parameter, max_size=3)


def _contents() -> st.SearchStrategy[kfs.InferTensorContents]:
    lists = {field: st.lists(values, max_size=3) for field, values in CONTENTS.items()}
    return st.fixed_dictionaries({}, optional=lists).map(
        lambda fields: kfs.InferTensorContents(**fields)
    )


def _tensors() -> st.SearchStrategy[kfs.ModelInferRequest.InferInputTensor]:
    return st.builds(
        kfs.ModelInferRequest.InferInputTensor,
        name=texts(),
        datatype=texts(),
        shape=st.lists(INT64, max_size=3),
        parameters=_parameters(),
        contents=st.none() | _contents(),
    )


def _outputs() -> st.SearchStrategy[kfs.ModelInferRequest.InferRequestedOutputTensor]:
    return st.builds(
        kfs.ModelInferRequest.InferRequestedOutputTensor, name=texts(), parameters=_parameters()
    )


def infer_requests() -> st.SearchStrategy[kfs.ModelInferRequest]:
    """Requests with anything in them but NaN, which is not equal to itself."""
    return st.builds(
        kfs.ModelInferRequest,
        model_name=texts() | st.text("n", min_size=120, max_size=400),
        model_version=texts(),
        id=texts(),
        parameters=_parameters(),
        inputs=st.lists(_tensors(), max_size=2),
        outputs=st.lists(_outputs(), max_size=2),
        raw_input_contents=st.lists(st.binary(max_size=200), max_size=2),
    )
