"""A string at a path of field numbers, read and replaced in raw protobuf bytes.

For messages of services that are known by configuration alone, so that no generated class can help.
Nothing but the fields on the path is looked into; all else stays byte for byte. As protobuf merges,
the last occurrence wins, also over several occurrences of an enclosing message. A field on the path
that comes with another wire type counts as unknown, as it does in protobuf.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from mesh.core.errors import InvalidRequest

Path: TypeAlias = tuple[int, ...]

VARINT, FIXED64, DELIMITED, GROUP, GROUP_END, FIXED32 = range(6)
MAX_TAG = 2**32 - 1
MAX_VARINT_BYTES = 10
MAX_GROUPS = 100


class _Field(NamedTuple):
    """`sized_at`: where what follows the tag begins, which is the length in delimited ones."""

    number: int
    wire_type: int
    sized_at: int
    start: int
    end: int


class _Broken(Exception):
    """The bytes are no protobuf message."""


def read_string(message: bytes, path: Path) -> str:
    """The string at the path, empty where there is none. Raises InvalidRequest."""
    if not (fields := _find(message, path)):
        return ""
    try:
        return message[fields[-1].start : fields[-1].end].decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(field_name(path), "is not valid UTF-8") from error


def replace_string(message: bytes, path: Path, text: str) -> bytes:
    """The message with this string at the path, put there if none was. Raises InvalidRequest."""
    fields = _find(message, path)
    value = text.encode()
    if not fields:
        for number in reversed(path):
            value = b"".join((_varint(number << 3 | DELIMITED), _varint(len(value)), value))
        return message + value
    around = [(0, len(message)), *((field.start, field.end) for field in fields)]
    for field, (start, end) in zip(reversed(fields), reversed(around[:-1]), strict=True):
        before, after = message[start : field.sized_at], message[field.end : end]
        value = b"".join((before, _varint(len(value)), value, after))
    return value


def _find(message: bytes, path: Path) -> list[_Field]:
    """The last occurrence with the messages around it, outermost first; empty if there is none."""
    try:
        return _last(message, 0, len(message), path)
    except _Broken as error:
        problem = f"the request is no valid protobuf message ({len(message)} bytes)"
        raise InvalidRequest(field_name(path), problem) from error


def _last(message: bytes, start: int, end: int, path: Path) -> list[_Field]:
    found: list[_Field] = []
    for field in _fields(message, start, end):
        if field.number != path[0] or field.wire_type != DELIMITED:
            continue
        if len(path) == 1:
            found = [field]
        elif inner := _last(message, field.start, field.end, path[1:]):
            found = [field, *inner]
    return found


def _fields(message: bytes, at: int, end: int) -> Iterator[_Field]:
    """The fields outside of groups; groups are walked over."""
    groups: list[int] = []
    while at < end:
        tag, sized_at = _read_varint(message, at, end)
        number, wire_type = tag >> 3, tag & 7
        if tag > MAX_TAG or not number:
            raise _Broken
        if wire_type == GROUP:
            groups.append(number)
            if len(groups) > MAX_GROUPS:
                raise _Broken
            at = sized_at
        elif wire_type == GROUP_END:
            if not groups or groups.pop() != number:
                raise _Broken
            at = sized_at
        else:
            start, at = _extent(message, wire_type, sized_at, end)
            if not groups:
                yield _Field(number, wire_type, sized_at, start, at)
    if groups:
        raise _Broken


def _extent(message: bytes, wire_type: int, at: int, end: int) -> tuple[int, int]:
    """Where a value begins and ends."""
    start = at
    if wire_type == VARINT:
        _, stop = _read_varint(message, at, end)
    elif wire_type == FIXED64:
        stop = at + 8
    elif wire_type == FIXED32:
        stop = at + 4
    elif wire_type == DELIMITED:
        size, start = _read_varint(message, at, end)
        stop = start + size
    else:
        raise _Broken
    if stop > end:
        raise _Broken
    return start, stop


def _read_varint(message: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : min(end, at + MAX_VARINT_BYTES)]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise _Broken


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field_name(path: Path) -> str:
    """What errors call the place of a path."""
    return "field " + ".".join(map(str, path))
