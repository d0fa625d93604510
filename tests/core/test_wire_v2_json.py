"""Requests in JSON to messages, and answers back."""

import json
import math
import struct
from contextlib import suppress

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidRequest
from mesh.wire import tensors
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.v2_json import to_json, to_request

WHOLE = {
    **{f"INT{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}
VALUES = {
    "BOOL": st.booleans(),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    "BYTES": st.text(),
    **{name: st.integers(*bounds) for name, bounds in WHOLE.items()},
}


def request_of(data: object, datatype: str = "FP32", shape: object = None, **fields) -> dict:
    shape = [len(data)] if shape is None and isinstance(data, list) else shape
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return {"inputs": [tensor | fields]}


def packed(datatype: str, values: list) -> bytes:
    """The values as raw bytes: the same decimals are not wanted of FP32, but the same number."""
    if datatype == "BYTES":
        return repr(values).encode()
    return struct.pack(f"<{len(values)}{tensors.RAW_CODES[datatype]}", *values)


def problem_of(document: object) -> str:
    with pytest.raises(InvalidRequest) as caught:
        to_request(document, "p")
    return caught.value.message


def answer_of(request: kfs.ModelInferRequest) -> kfs.ModelInferResponse:
    """A model that answers with what it was sent."""
    sent = request.inputs[0]
    output = kfs.ModelInferResponse.InferOutputTensor(
        name=sent.name, datatype=sent.datatype, shape=sent.shape, contents=sent.contents
    )
    return kfs.ModelInferResponse(outputs=[output])


@given(st.data(), st.sampled_from(sorted(VALUES)))
def test_values_come_back_as_they_were(data, datatype):
    values = data.draw(st.lists(VALUES[datatype]))
    request = to_request(json.loads(json.dumps(request_of(values, datatype))), "p")
    sent = kfs.ModelInferRequest.FromString(request.SerializeToString())
    (output,) = to_json(answer_of(sent))["outputs"]
    assert packed(datatype, output.pop("data")) == packed(datatype, values)
    assert output == {"name": "x", "datatype": datatype, "shape": [len(values)]}


@given(st.data(), st.sampled_from(sorted(set(VALUES) - {"BYTES"})))
def test_raw_bytes_say_the_same_as_contents(data, datatype):
    values = data.draw(st.lists(VALUES[datatype]))
    raw = packed(datatype, values)
    assert packed(datatype, tensors.decode_raw(datatype, raw)) == raw


FIELDS = ("inputs", "outputs", "name", "data", "shape", "datatype", "contents", "id")
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner),
    )
)
def test_anything_else_is_one_type_of_error(document):
    with suppress(InvalidRequest):
        to_request(document, "p")


def test_request_has_all_that_the_document_says_but_its_name():
    document = request_of([1, 2.5], parameters={"a": True}) | {
        "model_name": "other",
        "model_version": "2",
        "id": "r1",
        "parameters": {"b": 7, "c": 0.5, "d": "e"},
        "outputs": [{"name": "y", "parameters": {"f": -1}}],
    }
    request = to_request(document, "p")
    assert json_format.MessageToDict(request, preserving_proto_field_name=True) == {
        "model_name": "p",
        "model_version": "2",
        "id": "r1",
        "parameters": {
            "b": {"int64_param": "7"},
            "c": {"double_param": 0.5},
            "d": {"string_param": "e"},
        },
        "inputs": [
            {
                "name": "x",
                "datatype": "FP32",
                "shape": ["2"],
                "parameters": {"a": {"bool_param": True}},
                "contents": {"fp32_contents": [1.0, 2.5]},
            }
        ],
        "outputs": [{"name": "y", "parameters": {"f": {"int64_param": "-1"}}}],
    }


def test_nested_data_is_the_same_as_flat():
    flat = to_request(request_of([1, 2, 3, 4], "INT64", [2, 1, 2]), "p")
    nested = to_request(request_of([[[1, 2]], [[3, 4]]], "INT64", [2, 1, 2]), "p")
    assert flat == nested


def test_deeply_nested_data_is_taken():
    data: list = [1]
    for _ in range(500):
        data = [data]
    assert to_request(request_of(data, "INT8", [1]), "p").inputs[0].contents.int_contents == [1]


@pytest.mark.parametrize("fields", [("contents", "fp32_contents"), ("contents", "fp32Contents")])
def test_form_of_grpc_is_taken_as_it_is(fields):
    tensor, values = fields
    document = {
        "modelName": "other",
        "parameters": {"a": {"string_param": "b"}},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1], tensor: {values: [1.5]}}],
    }
    request = to_request(document, "p")
    assert (request.model_name, request.parameters["a"].string_param) == ("p", "b")
    assert request.inputs[0].contents.fp32_contents == [1.5]


@pytest.mark.parametrize("field", ["raw_input_contents", "rawInputContents"])
def test_form_of_grpc_may_have_raw_bytes(field):
    document = {"inputs": [{"name": "x", "datatype": "FP16", "shape": [1]}], field: ["ADw="]}
    assert to_request(document, "p").raw_input_contents == [b"\x00\x3c"]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_refused_with_a_word_for_it(datatype):
    assert problem_of(request_of([1], datatype)) == (
        f"inputs[0].datatype: {datatype} has no form in JSON, since it travels as raw bytes"
        " alone; send FP32"
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "request: must be a JSON object with inputs"),
        ({}, "inputs: required"),
        ({"inputs": []}, "inputs: required"),
        ({"inputs": {}}, "inputs: must be a list"),
        ({"inputs": [1]}, "inputs[0]: must be an object"),
        ({"input": []}, "input: unknown field, known: model_name, "),
        (request_of([1], nam="y"), "inputs[0].nam: unknown field"),
        (request_of([1], name=""), "inputs[0].name: required"),
        (request_of([1], name=3), "inputs[0].name: must be a string"),
        (request_of([1], "FP99"), "inputs[0].datatype: must be one of BOOL, UINT8, "),
        (request_of([1], shape="1"), "inputs[0].shape: must be a list of whole numbers"),
        (request_of([1], shape=[-1]), "inputs[0].shape: must be a list of whole numbers"),
        (request_of([1], shape=[True]), "inputs[0].shape: must be a list of whole numbers"),
        (request_of([1], shape=[2**63]), "inputs[0].shape: must be a list of whole numbers"),
        (request_of("abc", shape=[3]), "inputs[0].data: must be a list"),
        (request_of([1, [2]]), "inputs[0].data: mixes lists and values"),
        (request_of([1, 2], shape=[1, 3]), "inputs[0].data: has 2 values, but shape has 3"),
        (request_of(["1"]), "inputs[0].data: each value must be a number"),
        (request_of([True]), "inputs[0].data: each value must be a number"),
        (request_of([1e39]), "inputs[0].data: each value must be a number that FP32 can hold"),
        (request_of([10**400], "FP64"), "a number that FP64 can hold"),
        (request_of([1], "BOOL"), "inputs[0].data: each value must be true or false"),
        (request_of([1], "BYTES"), "inputs[0].data: each value must be a string"),
        (request_of(["\ud800"], "BYTES"), "inputs[0].data: each value must be valid Unicode"),
        (request_of([1], name="\ud800"), "request: must be valid Unicode"),
        (request_of([1], parameters=[]), "inputs[0].parameters: must be an object"),
        (request_of([1], parameters={"a": None}), "inputs[0].parameters.a: must be true or"),
        (request_of([1]) | {"parameters": {"a": 2**63}}, "parameters.a: must be true or false"),
        (request_of([1]) | {"outputs": [{}]}, "outputs[0].name: required"),
        (request_of([1]) | {"id": 1}, "id: must be a string"),
        (request_of([1], contents={}), 'has no field named "data"'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(document, problem):
    assert problem in problem_of(document)


@pytest.mark.parametrize("datatype", sorted(WHOLE))
def test_whole_numbers_stay_in_their_bounds(datatype):
    least, most = WHOLE[datatype]
    for value in (least - 1, most + 1, 0.5, True):
        expected = f"inputs[0].data: each value must be a whole number from {least} to {most}"
        assert problem_of(request_of([value], datatype)) == expected


def test_fp32_is_shown_by_its_shortest_digits():
    values = [0.1, 1 / 3, 37220488.0, 3.4028234663852886e38, math.inf, -math.inf]
    contents = kfs.InferTensorContents(fp32_contents=values)
    shown = tensors.decode("FP32", contents)
    assert shown == [0.1, 0.33333334, 37220488.0, 3.4028235e38, math.inf, -math.inf]
    nan = tensors.decode("FP32", kfs.InferTensorContents(fp32_contents=[math.nan]))
    assert math.isnan(nan[0])


def test_answer_leaves_out_what_it_does_not_have():
    assert to_json(kfs.ModelInferResponse(model_name="p-1")) == {"model_name": "p-1", "outputs": []}


def test_answer_has_its_parameters_as_plain_values():
    answer = kfs.ModelInferResponse(id="r", model_version="v")
    answer.parameters["n"].int64_param = 3
    answer.parameters["b"].bool_param = False
    answer.parameters["empty"].SetInParent()
    output = answer.outputs.add(name="y", datatype="INT8", shape=[1])
    output.contents.int_contents.append(-1)
    output.parameters["content_type"].string_param = "np"
    assert to_json(answer) == {
        "model_version": "v",
        "id": "r",
        "parameters": {"b": False, "n": 3},
        "outputs": [
            {
                "name": "y",
                "datatype": "INT8",
                "shape": [1],
                "parameters": {"content_type": "np"},
                "data": [-1],
            }
        ],
    }


@pytest.mark.parametrize(
    ("datatype", "raw", "values"),
    [
        ("FP16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        ("BF16", b"\x80\x3f\x00\xc0", [1.0, -2.0]),
        ("FP32", struct.pack("<f", 0.1), [0.1]),
        ("BYTES", b"\x02\0\0\0ab\0\0\0\0", ["ab", ""]),
        ("BYTES", b"", []),
    ],
)
def test_raw_answers_are_read(datatype, raw, values):
    output = kfs.ModelInferResponse.InferOutputTensor(name="y", datatype=datatype)
    answer = kfs.ModelInferResponse(outputs=[output], raw_output_contents=[raw])
    assert to_json(answer)["outputs"][0]["data"] == values


@pytest.mark.parametrize(
    ("datatype", "raw"),
    [("FP32", b"abc"), ("BF16", b"abc"), ("BYTES", b"\x05\0\0\0ab"), ("BYTES", b"ab")],
)
def test_raw_answer_that_is_cut_off_is_an_error(datatype, raw):
    with pytest.raises(InvalidRequest, match="hold no whole number"):
        tensors.decode_raw(datatype, raw)


def test_answer_of_an_unknown_type_is_an_error():
    output = kfs.ModelInferResponse.InferOutputTensor(name="y", datatype="FP99")
    for raw in ([], [b"ab"]):
        answer = kfs.ModelInferResponse(outputs=[output], raw_output_contents=raw)
        with pytest.raises(InvalidRequest, match="datatype"):
            to_json(answer)


def test_bytes_that_are_no_text_are_base64_and_say_so():
    contents = kfs.InferTensorContents(bytes_contents=[b"a", b"\xff"])
    output = kfs.ModelInferResponse.InferOutputTensor(
        name="y", datatype="BYTES", shape=[2], contents=contents
    )
    (shown,) = to_json(kfs.ModelInferResponse(outputs=[output]))["outputs"]
    assert shown["data"] == ["YQ==", "/w=="]
    assert shown["parameters"] == {"content_type": "base64"}
