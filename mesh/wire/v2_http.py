"""The body of a V2 request over HTTP, to the gRPC message; and the answer back to a body."""

import json
import math
from typing import Any

from mesh.core.errors import InvalidRequest
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.v2_binary import Tail, Wanted, take_wanted
from mesh.wire.v2_json import to_json_and_bytes, to_request

# How much of a body is JSON; without it all of it is.
LENGTH_HEADER = "Inference-Header-Content-Length"


def read_body(
    body: bytes, length: str | None, name: str, version: str = ""
) -> tuple[kfs.ModelInferRequest, Wanted]:
    """The request to the model `name`, and in which form its outputs are wanted.

    `length` is the value of LENGTH_HEADER; `version`, if given, goes before the one in the body.
    Raises InvalidRequest with the place of what is wrong.
    """
    end = _end(body, length)
    request = to_request(_document(body[:end]), name, Tail(body[end:]))
    if version:
        request.model_version = version
    return request, take_wanted(request)


def write_body(response: kfs.ModelInferResponse, wanted: Wanted) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON where that is not all of it.

    Numbers that JSON does not have, NaN and the infinities, become null. Raises InvalidRequest for
    a tensor that cannot be read.
    """
    fields, pieces = to_json_and_bytes(response, wanted)
    head = _text(fields).encode()
    return b"".join((head, *pieces)), len(head) if pieces else None


def _end(body: bytes, length: str | None) -> int:
    if length is None:
        return len(body)
    if not (length.isascii() and length.isdigit()) or int(length[:20]) > len(body):
        problem = f"must be a number of bytes that the body has; it has {len(body)}"
        raise InvalidRequest(LENGTH_HEADER, problem)
    return int(length)


def _document(text: bytes) -> object:
    try:
        return json.loads(text.decode())
    except json.JSONDecodeError as error:
        raise InvalidRequest("body", f"not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"not UTF-8: {error.reason} at byte {error.start}") from error
    except ValueError as error:  # a number of thousands of digits
        raise InvalidRequest("body", f"not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("body", "nested too deeply") from error


def _text(fields: dict[str, Any]) -> str:
    try:
        return _dumped(fields)
    except ValueError:
        return _dumped(_finite(fields))


def _dumped(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
    return value
