"""The values of a tensor, as JSON has them, to the contents of a V2 message and back.

FP16 and BF16 have no field among the contents: they travel as raw bytes alone, so that they can be
read in an answer and not be written in JSON.
"""

import base64
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.core.errors import InvalidRequest
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs

FP32_MAX = 3.4028235677973366e38  # the first that rounds to infinity
EXACT_WHOLE = 2**53
RAW_ONLY = ("FP16", "BF16")
BYTES = "BYTES"
FP32 = "FP32"


@dataclass(frozen=True, slots=True)
class Datatype:
    """Where values of a type stand: a field of the contents, and a `struct` code in raw bytes.

    `read` gives a JSON value as the field takes it; ValueError says what it must be.
    """

    field: str
    code: str
    read: Callable[[Any], Any]


def encode(datatype: str, values: Sequence[Any], place: str) -> kfs.InferTensorContents:
    """Values as contents; raises InvalidRequest with the place of what does not fit."""
    kind = TYPES.get(datatype)
    if kind is None:
        raise InvalidRequest(f"{place}.datatype", _unknown(datatype))
    try:
        fitting = [kind.read(value) for value in values]
    except ValueError as error:
        raise InvalidRequest(f"{place}.data", f"each value must be {error}") from error
    contents = kfs.InferTensorContents()
    getattr(contents, kind.field).extend(fitting)
    return contents


def decode(datatype: str, contents: kfs.InferTensorContents) -> list[Any]:
    """The values of contents; raises InvalidRequest for a type that has none."""
    kind = TYPES.get(datatype)
    if kind is None:
        raise InvalidRequest("datatype", _unknown(datatype))
    values = list(getattr(contents, kind.field))
    return [_shortest(value) for value in values] if datatype == FP32 else values


def decode_raw(datatype: str, raw: bytes) -> list[Any]:
    """The values of raw bytes, little-endian; raises InvalidRequest where they are none."""
    try:
        if datatype == BYTES:
            return list(_strings(raw))
        if datatype == "BF16":  # the upper half of an FP32
            raw = b"".join(b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2))
        code = RAW_CODES[datatype]
        values = list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
    except KeyError as error:
        raise InvalidRequest("datatype", _unknown(datatype)) from error
    except struct.error as error:
        problem = f"{len(raw)} bytes hold no whole number of {datatype} values"
        raise InvalidRequest("raw contents", problem) from error
    return [_shortest(value) for value in values] if datatype == FP32 else values


def encode_raw(datatype: str, contents: kfs.InferTensorContents) -> bytes:
    """The values of contents as raw bytes, the other way of `decode_raw`; raises InvalidRequest."""
    kind = TYPES.get(datatype)
    if kind is None:
        raise InvalidRequest("datatype", _unknown(datatype))
    values = getattr(contents, kind.field)
    if datatype == BYTES:
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    try:
        return struct.pack(f"<{len(values)}{kind.code}", *values)
    except struct.error as error:
        raise InvalidRequest("contents", f"{error} in a tensor of {datatype}") from error


def raw_bytes(datatype: str, shape: Iterable[int], place: str) -> int | None:
    """How many raw bytes a tensor has; None for BYTES, whose values have their own lengths.

    Raises InvalidRequest with the place for a type that there is not.
    """
    if datatype == BYTES:
        return None
    if datatype not in RAW_CODES:
        raise InvalidRequest(
            f"{place}.datatype", f"must be one of {', '.join((*TYPES, *RAW_ONLY))}"
        )
    size = 2 if datatype in RAW_ONLY else struct.calcsize(RAW_CODES[datatype])
    return size * math.prod(shape)


def texts(values: Iterable[bytes]) -> tuple[list[str], bool]:
    """BYTES as JSON can hold them, and whether that is base64: where one of them is not UTF-8."""
    values = list(values)
    try:
        return [value.decode() for value in values], False
    except UnicodeDecodeError:
        return [base64.b64encode(value).decode() for value in values], True


def _strings(raw: bytes) -> Iterable[bytes]:
    """Each has its length before it, in 4 bytes."""
    at = 0
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4 + size
        if at > len(raw):
            raise struct.error
        yield raw[at - size : at]


def _shortest(value: float) -> float:
    """The shortest decimal that is the same FP32, so that 0.1 is not 0.10000000149011612.

    Whole numbers are not rounded, as long as JSON's readers can hold them.
    """
    if value.is_integer() and abs(value) < EXACT_WHOLE:
        return value
    for digits in (6, 7, 8):
        short = float(f"{value:.{digits}g}")
        if abs(short) < FP32_MAX and struct.pack("<f", short) == struct.pack("<f", value):
            return short
    return float(f"{value:.9g}")


def _unknown(datatype: str) -> str:
    if datatype in RAW_ONLY:
        return f"{datatype} has no form in JSON, since it travels as raw bytes alone; send FP32"
    return f"must be one of {', '.join(TYPES)}"


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")  # noqa: TRY004 - one type for all that does not fit
    return value


def _whole(bits: int, *, is_signed: bool) -> Callable[[Any], int]:
    least = -(2 ** (bits - 1)) if is_signed else 0
    most = 2 ** (bits - is_signed) - 1

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    return read


def _fp64(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("a number")  # noqa: TRY004 - one type for all that does not fit
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("a number that FP64 can hold") from error


def _fp32(value: Any) -> float:
    number = _fp64(value)
    if math.isfinite(number) and abs(number) >= FP32_MAX:
        raise ValueError("a number that FP32 can hold")
    return number


def _bytes(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("a string")  # noqa: TRY004 - one type for all that does not fit
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("valid Unicode") from error


TYPES = {
    "BOOL": Datatype("bool_contents", "?", _bool),
    "UINT8": Datatype("uint_contents", "B", _whole(8, is_signed=False)),
    "UINT16": Datatype("uint_contents", "H", _whole(16, is_signed=False)),
    "UINT32": Datatype("uint_contents", "I", _whole(32, is_signed=False)),
    "UINT64": Datatype("uint64_contents", "Q", _whole(64, is_signed=False)),
    "INT8": Datatype("int_contents", "b", _whole(8, is_signed=True)),
    "INT16": Datatype("int_contents", "h", _whole(16, is_signed=True)),
    "INT32": Datatype("int_contents", "i", _whole(32, is_signed=True)),
    "INT64": Datatype("int64_contents", "q", _whole(64, is_signed=True)),
    FP32: Datatype("fp32_contents", "f", _fp32),
    "FP64": Datatype("fp64_contents", "d", _fp64),
    BYTES: Datatype("bytes_contents", "", _bytes),
}
RAW_CODES = {name: kind.code for name, kind in TYPES.items() if kind.code} | {
    "FP16": "e",
    "BF16": "f",
}
