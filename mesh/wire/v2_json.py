"""A V2 request as people write it, in JSON, to the gRPC message; and the answer back to JSON.

Two forms of a request are taken: that of REST, in which a tensor has `data`, flat or nested, and
parameters are plain values; and protobuf's own JSON, in which it has `contents`, as grpcurl takes
it. Answers are in the form of REST. Raises InvalidRequest with the place of what is wrong.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import json_format

from mesh.core.errors import InvalidRequest
from mesh.wire import tensors
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.v2_binary import JSON_ALONE, SIZE, Tail, Wanted

MAX_INT64 = 2**63 - 1
# The name is given beside the request; files have it all the same.
REQUEST_FIELDS = ("model_name", "model_version", "id", "parameters", "inputs", "outputs")
INPUT_FIELDS = ("name", "datatype", "shape", "parameters", "data")
OUTPUT_FIELDS = ("name", "parameters")
RAW_FIELDS = ("raw_input_contents", "rawInputContents")


def to_request(document: object, name: str, tail: Tail | None = None) -> kfs.ModelInferRequest:
    """The request of a document, to the model `name`, whatever the document says of that.

    `tail`: what came as bytes behind it.
    """
    tail = tail or Tail()
    if not isinstance(document, Mapping):
        raise InvalidRequest("request", "must be a JSON object with inputs")
    try:
        request = _parsed(document) if _has_contents(document) else _built(document, tail)
    except UnicodeEncodeError as error:
        # Half a pair of code units, which JSON can escape but UTF-8 cannot hold.
        raise InvalidRequest("request", "must be valid Unicode") from error
    if not request.inputs:
        raise InvalidRequest("inputs", "required")
    tail.finish(request)
    request.model_name = name
    return request


def to_json(response: kfs.ModelInferResponse) -> dict[str, Any]:
    """An answer as REST has it; what it does not have is left out."""
    return to_json_and_bytes(response, JSON_ALONE)[0]


def to_json_and_bytes(
    response: kfs.ModelInferResponse, wanted: Wanted
) -> tuple[dict[str, Any], list[bytes]]:
    """The same, and the bytes of those outputs that are wanted so, in their order."""
    raw = iter(response.raw_output_contents)
    pieces: list[bytes] = []
    outputs = []
    for output in response.outputs:
        given = next(raw, None)
        if wanted.is_binary(output.name):
            piece = _bytes(output, given)
            pieces.append(piece)
            outputs.append(_tensor(output, _plain(output.parameters) | {SIZE: len(piece)}))
        else:
            outputs.append(_output(output, given))
    fields: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "id": response.id,
        "parameters": _plain(response.parameters),
        "outputs": outputs,
    }
    return {k: value for k, value in fields.items() if value or k == "outputs"}, pieces


def _has_contents(document: Mapping[str, Any]) -> bool:
    inputs = document.get("inputs")
    return any(field in document for field in RAW_FIELDS) or (
        isinstance(inputs, list)
        and any(isinstance(item, Mapping) and "contents" in item for item in inputs)
    )


def _parsed(document: Mapping[str, Any]) -> kfs.ModelInferRequest:
    try:
        return json_format.ParseDict(dict(document), kfs.ModelInferRequest())
    except json_format.ParseError as error:
        raise InvalidRequest("request", str(error)) from error


def _built(document: Mapping[str, Any], tail: Tail) -> kfs.ModelInferRequest:
    _check_fields(document, REQUEST_FIELDS, "")
    request = kfs.ModelInferRequest(
        model_version=_text(document, "model_version", ""), id=_text(document, "id", "")
    )
    _fill(request.parameters, document.get("parameters"), "parameters")
    for place, item in _items(document, "inputs", INPUT_FIELDS):
        _add_input(request, item, place, tail)
    for place, item in _items(document, "outputs", OUTPUT_FIELDS):
        output = request.outputs.add(name=_text(item, "name", place, is_required=True))
        _fill(output.parameters, item.get("parameters"), f"{place}.parameters")
    return request


def _add_input(
    request: kfs.ModelInferRequest, item: Mapping[str, Any], place: str, tail: Tail
) -> None:
    tensor = request.inputs.add(
        name=_text(item, "name", place, is_required=True),
        datatype=_text(item, "datatype", place, is_required=True),
        shape=_shape(item, place),
    )
    _fill(tensor.parameters, item.get("parameters"), f"{place}.parameters")
    if tail.take(tensor, len(request.inputs) - 1, place):
        return
    values = _values(item, place)
    wanted = math.prod(tensor.shape)
    if len(values) != wanted:
        problem = f"has {len(values)} values, but shape has {wanted}"
        raise InvalidRequest(f"{place}.data", problem)
    tensor.contents.CopyFrom(tensors.encode(tensor.datatype, values, place))


def _items(
    document: Mapping[str, Any], field: str, known: Iterable[str]
) -> Iterable[tuple[str, Mapping[str, Any]]]:
    items = document.get(field, [])
    if not isinstance(items, list):
        raise InvalidRequest(field, "must be a list")
    for index, item in enumerate(items):
        place = f"{field}[{index}]"
        if not isinstance(item, Mapping):
            raise InvalidRequest(place, "must be an object")
        _check_fields(item, known, place)
        yield place, item


def _check_fields(item: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    for field in item:
        if field not in known:
            raise InvalidRequest(_join(place, field), f"unknown field, known: {', '.join(known)}")


def _text(item: Mapping[str, Any], field: str, place: str, *, is_required: bool = False) -> str:
    value = item.get(field, "")
    if not isinstance(value, str):
        raise InvalidRequest(_join(place, field), "must be a string")
    if is_required and not value:
        raise InvalidRequest(_join(place, field), "required")
    return value


def _shape(item: Mapping[str, Any], place: str) -> list[int]:
    shape = item.get("shape")
    is_whole = isinstance(shape, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= MAX_INT64
        for size in shape
    )
    if not isinstance(shape, list) or not is_whole:
        raise InvalidRequest(f"{place}.shape", "must be a list of whole numbers")
    return shape


def _values(item: Mapping[str, Any], place: str) -> list[Any]:
    """The data without its nesting."""
    values = item.get("data")
    if not isinstance(values, list):
        raise InvalidRequest(f"{place}.data", "must be a list")
    while any(isinstance(value, list) for value in values):
        if not all(isinstance(value, list) for value in values):
            raise InvalidRequest(f"{place}.data", "mixes lists and values")
        values = [value for row in values for value in row]
    return values


def _fill(target: Any, parameters: object, place: str) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(place, "must be an object")
    for key, value in parameters.items():
        match value:
            case bool():
                target[key].bool_param = value
            case int() if -MAX_INT64 - 1 <= value <= MAX_INT64:
                target[key].int64_param = value
            case float():
                target[key].double_param = value
            case str():
                target[key].string_param = value
            case _:
                problem = "must be true or false, a number or a string"
                raise InvalidRequest(_join(place, key), problem)


def _output(output: Any, raw: bytes | None) -> dict[str, Any]:
    values = (
        tensors.decode(output.datatype, output.contents)
        if raw is None
        else tensors.decode_raw(output.datatype, raw)
    )
    parameters = _plain(output.parameters)
    if output.datatype == tensors.BYTES:
        values, is_base64 = tensors.texts(values)
        parameters |= {"content_type": "base64"} if is_base64 else {}
    return _tensor(output, parameters) | {"data": values}


def _bytes(output: Any, raw: bytes | None) -> bytes:
    return tensors.encode_raw(output.datatype, output.contents) if raw is None else raw


def _tensor(output: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    fields = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
    return fields | ({"parameters": parameters} if parameters else {})


def _plain(parameters: Mapping[str, kfs.InferParameter]) -> dict[str, Any]:
    plain = {}
    for key in sorted(parameters):
        kind = parameters[key].WhichOneof("parameter_choice")
        if kind is not None:
            plain[key] = getattr(parameters[key], kind)
    return plain


def _join(place: str, field: str) -> str:
    return f"{place}.{field}" if place else field
