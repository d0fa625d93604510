"""The name of a large message, without copying the rest of it.

Only plain messages are taken: the name first, then few fields with small numbers, each whole.
What is not plain is left to protobuf's parser, so that nothing is accepted here that it would
refuse.
"""

from dataclasses import dataclass

NAME_TAG = 0x0A  # field 1, a string
FIRST_OTHER_TAG = 0x10  # that of field 2
MOST_FIELDS = 64
MOST_LENGTH_BYTES = 5
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED_BYTES = {FIXED64: 8, FIXED32: 4}


@dataclass(frozen=True, slots=True)
class Sliced:
    """A message whose name comes first and whose other fields begin at `rest`."""

    name: str
    message: bytes
    rest: int


def slice_name(message: bytes) -> Sliced | None:
    """The parts of a plain message; None where it is not plain, or not a message at all."""
    try:
        if message[0] != NAME_TAG or message[1] >= 0x80:
            return None
        rest = 2 + message[1]
        name = message[2:rest].decode()
        is_plain = _is_plain(message, rest)
    except (IndexError, UnicodeDecodeError):
        return None
    return Sliced(name, message, rest) if is_plain else None


def _is_plain(message: bytes, at: int) -> bool:
    """Whether whole fields with numbers from 2 to 15 begin at `at` and end with the message."""
    for _ in range(MOST_FIELDS):
        if at >= len(message):
            return at == len(message)
        tag = message[at]
        if not FIRST_OTHER_TAG <= tag < 0x80:
            return False
        at = _after(message, at + 1, tag & 7)
    return False


def _after(message: bytes, at: int, kind: int) -> int:
    """Where the field ends whose value begins at `at`. Raises IndexError if that is not clear."""
    if kind in FIXED_BYTES:
        return at + FIXED_BYTES[kind]
    value = 0
    for place in range(MOST_LENGTH_BYTES):
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            break
    else:
        raise IndexError
    end = at + place + 1
    if kind == VARINT:
        return end
    if kind == BYTES:
        return end + value
    raise IndexError
