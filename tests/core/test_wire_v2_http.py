"""Bodies of V2 over HTTP to messages and back, with tensors as JSON and as bytes."""

import json
import struct
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidRequest
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.v2_binary import Wanted
from mesh.wire.v2_http import read_body, write_body
from tests.core.test_wire_v2_json import VALUES

CODES = {
    "BOOL": "?",
    **{f"{sign}INT{bits}": code for bits, code in ((8, "b"), (16, "h"), (32, "i"), (64, "q"))
       for sign, code in (("", code), ("U", code.upper()))},
    "FP32": "f",
    "FP64": "d",
}  # fmt: skip


def body_of(document: dict[str, Any], *pieces: bytes) -> tuple[bytes, str]:
    """A body with bytes behind its JSON, and the length of that."""
    head = json.dumps(document).encode()
    return b"".join((head, *pieces)), str(len(head))


def binary(name: str, datatype: str, shape: list[int], size: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def echo(request: kfs.ModelInferRequest) -> kfs.ModelInferResponse:
    answer = kfs.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    for tensor in request.inputs:
        answer.outputs.add(
            name=tensor.name, datatype=tensor.datatype, shape=tensor.shape, contents=tensor.contents
        )
    return answer


def split(body: bytes, length: int | None) -> tuple[dict[str, Any], bytes]:
    return json.loads(body[:length]), body[length:] if length is not None else b""


def packed(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        parts = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(part)) + part for part in parts)
    return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)


def problem_of(body: bytes, length: str | None = None) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read_body(body, length, "p")
    return caught.value.message


@given(st.data(), st.sampled_from(sorted(VALUES)), st.booleans(), st.booleans())
def test_values_come_back_in_the_form_that_is_wanted(data, datatype, is_sent_raw, is_wanted_raw):
    values = data.draw(st.lists(VALUES[datatype]))
    raw = packed(datatype, values)
    if is_sent_raw:
        tensor, pieces = binary("x", datatype, [len(values)], len(raw)), [raw]
    else:
        tensor = {"name": "x", "datatype": datatype, "shape": [len(values)], "data": values}
        pieces = []
    document = {"inputs": [tensor], "parameters": {"binary_data_output": is_wanted_raw}}
    request, wanted = read_body(*body_of(document, *pieces), "p")
    assert not request.parameters
    assert not request.inputs[0].parameters
    answer, tail = split(*write_body(echo(request), wanted))
    (output,) = answer["outputs"]
    if is_wanted_raw:
        assert (output["parameters"], tail) == ({"binary_data_size": len(raw)}, raw)
        assert "data" not in output
    elif all(value is not None for value in output["data"]):
        assert packed(datatype, output["data"]) == raw


@given(st.binary(), st.none() | st.text() | st.integers(-2, 40).map(str))
def test_any_bytes_are_one_type_of_error(body, length):
    with suppress(InvalidRequest):
        read_body(body, length, "p")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
TENSORS = st.fixed_dictionaries(
    {
        "name": st.text(min_size=1),
        "datatype": st.sampled_from([*VALUES, "FP16", "BF16", "FP8"]),
        "shape": st.lists(st.integers(0, 3), max_size=2),
    },
    optional={
        "data": st.lists(LEAVES, max_size=3),
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-1, 9) | LEAVES),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3)},
    optional={
        "parameters": st.dictionaries(st.just("binary_data_output"), LEAVES),
        "outputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.just("x")},
                optional={"parameters": st.dictionaries(st.just("binary_data"), LEAVES)},
            )
        ),
    },
)


@given(DOCUMENTS, st.binary(max_size=20))
def test_what_is_nearly_right_is_one_type_of_error(document, tail):
    with suppress(InvalidRequest):
        request, wanted = read_body(*body_of(document, tail), "p")
        write_body(echo(request), wanted)


def test_name_and_version_of_the_path_go_before_those_of_the_body():
    document = {
        "model_name": "other",
        "model_version": "1",
        "inputs": [binary("x", "INT8", [0], 0)],
    }
    request, _ = read_body(*body_of(document), "p", "2")
    assert (request.model_name, request.model_version) == ("p", "2")
    assert read_body(*body_of(document), "p")[0].model_version == "1"


def test_inputs_as_json_become_raw_beside_those_that_came_so():
    as_json = {"name": "a", "datatype": "INT16", "shape": [2], "data": [1, 2]}
    texts = {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["é"]}
    document = {"inputs": [as_json, binary("c", "FP16", [2], 4), texts]}
    request, _ = read_body(*body_of(document, b"wxyz"), "p")
    assert list(request.raw_input_contents) == [b"\1\0\2\0", b"wxyz", b"\2\0\0\0\xc3\xa9"]
    assert not any(tensor.HasField("contents") for tensor in request.inputs)


def test_an_output_may_be_wanted_otherwise_than_the_others():
    outputs = [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}]
    inputs = [{"name": name, "datatype": "INT8", "shape": [1], "data": [7]} for name in "ab"]
    parameters = {"binary_data_output": True}
    document = {"inputs": inputs, "outputs": outputs, "parameters": parameters}
    request, wanted = read_body(*body_of(document), "p")
    assert not any(output.parameters for output in request.outputs)
    answer, tail = split(*write_body(echo(request), wanted))
    assert (answer["outputs"][0]["data"], tail) == ([7], b"\7")


def test_numbers_that_json_does_not_have_are_null():
    answer = kfs.ModelInferResponse()
    answer.outputs.add(name="x", datatype="FP64", shape=[3]).contents.fp64_contents.extend(
        [float("nan"), float("-inf"), 1.5]
    )
    body, _ = write_body(answer, Wanted())
    assert json.loads(body)["outputs"][0]["data"] == [None, None, 1.5]


@pytest.mark.parametrize(("datatype", "value"), [("UINT8", 300), ("INT8", 200)])
def test_answer_that_does_not_fit_its_type_is_an_error(datatype: str, value: int):
    answer = kfs.ModelInferResponse()
    contents = answer.outputs.add(name="x", datatype=datatype, shape=[1]).contents
    contents.uint_contents.append(value)
    contents.int_contents.append(value)
    with pytest.raises(InvalidRequest, match=f"in a tensor of {datatype}"):
        write_body(answer, Wanted(are_all=True))


def test_answer_of_a_type_that_there_is_not_is_an_error():
    answer = kfs.ModelInferResponse()
    answer.outputs.add(name="x", datatype="FP8")
    with pytest.raises(InvalidRequest, match="datatype"):
        write_body(answer, Wanted(are_all=True))


@pytest.mark.parametrize(
    ("body", "length", "message"),
    [
        (b"", None, "body: not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"{", None, "body: not JSON: Expecting property name"),
        (b'{"a": \xff}', None, "body: not UTF-8: invalid start byte at byte 6"),
        (b"9" * 5000, None, "body: not JSON: Exceeds the limit"),
        (b"[" * 100_000, None, "body: nested too deeply"),
        (b"[]", None, "request: must be a JSON object with inputs"),
        (b"{}", None, "inputs: required"),
        (
            b"{}",
            "3",
            "Inference-Header-Content-Length: must be a number of bytes that the body has",
        ),
        (b"{}", "-1", "Inference-Header-Content-Length: must be"),
        (b"{}", "9" * 30, "Inference-Header-Content-Length: must be"),
        (b"{}", "²", "Inference-Header-Content-Length: must be"),
    ],
)
def test_body_that_is_wrong_is_refused(body: bytes, length: str | None, message: str):
    assert problem_of(body, length).startswith(message)


@pytest.mark.parametrize(
    ("tensor", "tail", "message"),
    [
        (binary("x", "INT8", [2], 2), b"a", "is 2, but 1 bytes behind the JSON are left"),
        (binary("x", "INT8", [2], 1), b"a", "is 1, but datatype and shape have 2 bytes"),
        (binary("x", "INT8", [2], -1), b"a", "must be a whole number of bytes"),
        (binary("x", "INT8", [2], "2"), b"a", "must be a whole number of bytes"),
    ],
)
def test_size_that_does_not_fit_is_refused(tensor: dict[str, Any], tail: bytes, message: str):
    problem = problem_of(*body_of({"inputs": [tensor]}, tail))
    assert problem == f"inputs[0].parameters.binary_data_size: {message}"


def test_bytes_of_no_input_and_unknown_types_are_refused():
    as_json = {"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}
    problem = problem_of(*body_of({"inputs": [as_json]}, b"abc"))
    assert problem == "inputs: 3 bytes behind the JSON are of no input"
    problem = problem_of(*body_of({"inputs": [binary("x", "FP8", [1], 1)]}, b"a"))
    assert problem.startswith("inputs[0].datatype: must be one of BOOL")


def test_form_of_outputs_must_be_true_or_false():
    tensor = {"name": "x", "datatype": "INT8", "shape": [1], "data": [1]}
    outputs = [{"name": "y", "parameters": {"binary_data": 1}}]
    problem = problem_of(*body_of({"inputs": [tensor], "outputs": outputs}))
    assert problem == "outputs[0].parameters.binary_data: must be true or false"
    document = {"inputs": [tensor], "parameters": {"binary_data_output": "yes"}}
    assert problem_of(*body_of(document)) == "parameters.binary_data_output: must be true or false"
