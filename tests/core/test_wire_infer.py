"""The name in raw bytes: whatever else a message holds comes out as it went in."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.errors import InvalidRequest
from mesh.wire.infer import read_head, with_name
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from tests.support.strategies import infer_requests, texts

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = 0, 1, 2, 3, 4, 5
MAX_FIELD = 2**29 - 1
# Fields that no message of the protocol has.
unknown_fields = st.integers(1000, MAX_FIELD)


def varint(value: int, *, padding: int = 0) -> bytes:
    """`padding` more bytes than it takes: no minimal encoding, but a legal one."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def tag(field: int, kind: int, *, padding: int = 0) -> bytes:
    return varint(field << 3 | kind, padding=padding)


def delimited(field: int, value: bytes, *, padding: int = 0) -> bytes:
    return tag(field, BYTES, padding=padding) + varint(len(value), padding=padding) + value


def replaced(message: bytes, name: str) -> bytes:
    return with_name(read_head(message), name)


@st.composite
def encoded_fields(draw) -> bytes:
    """One field that the router does not know, of any kind."""
    field = draw(unknown_fields)
    match draw(st.sampled_from([VARINT, FIXED64, BYTES, GROUP, FIXED32])):
        case 0:
            value = draw(st.integers(0, 2**64 - 1))
            return tag(field, VARINT) + varint(value)
        case 1:
            return tag(field, FIXED64) + draw(st.binary(min_size=8, max_size=8))
        case 2:
            return delimited(field, draw(st.binary(max_size=200)))
        case 3:
            inner = tag(1, VARINT) + varint(draw(st.integers(0, 9)))
            return tag(field, GROUP) + inner + tag(field, END_GROUP)
        case _:
            return tag(field, FIXED32) + draw(st.binary(min_size=4, max_size=4))


@given(infer_requests(), texts())
def test_replace_changes_the_name_and_nothing_else(request_, name):
    message = request_.SerializeToString()
    assert read_head(message).name == request_.model_name
    request_.model_name = name
    assert kfs.ModelInferRequest.FromString(replaced(message, name)) == request_


@given(infer_requests(), st.randoms(use_true_random=False), texts())
def test_replace_finds_the_name_wherever_it_stands(request_, random, name):
    pieces = [
        kfs.ModelInferRequest(**{field.name: value}).SerializeToString()
        for field, value in request_.ListFields()
        if not field.is_repeated
    ]
    random.shuffle(pieces)
    shuffled = b"".join(pieces)
    expected = kfs.ModelInferRequest.FromString(shuffled)
    assert read_head(shuffled).name == request_.model_name
    expected.model_name = name
    assert kfs.ModelInferRequest.FromString(replaced(shuffled, name)) == expected


@given(st.lists(encoded_fields(), max_size=5), texts(), texts(), st.integers(0, 5))
def test_replace_keeps_unknown_fields_byte_by_byte(fields, old, new, place):
    name = delimited(1, old.encode())
    message = b"".join([*fields[:place], name, *fields[place:]])
    out = replaced(message, new)
    expected = delimited(1, new.encode()) if new else b""
    assert out == expected + b"".join(fields)


@given(st.integers(0, 3), st.integers(0, 3))
def test_head_reads_lengths_that_are_longer_than_need_be(padding, other_padding):
    message = delimited(3, b"id", padding=other_padding) + delimited(1, b"p", padding=padding)
    assert read_head(message).name == "p"
    assert kfs.ModelInferRequest.FromString(replaced(message, "q")).id == "id"


@given(st.lists(texts(), min_size=1, max_size=4))
def test_head_of_a_name_given_often_is_the_last(names):
    message = b"".join(delimited(1, name.encode()) for name in names)
    assert read_head(message).name == names[-1]
    assert kfs.ModelInferRequest.FromString(message).model_name == names[-1]
    assert replaced(message, "new") == delimited(1, b"new")


def test_name_of_a_mebibyte_is_read_and_replaced():
    message = delimited(1, b"n" * 2**20) + delimited(7, b"tensor")
    assert len(read_head(message).name) == 2**20
    assert replaced(message, "m" * 200) == delimited(1, b"m" * 200) + delimited(7, b"tensor")


def test_head_without_a_name_is_no_error():
    assert read_head(b"").name == ""
    assert replaced(delimited(7, b"tensor"), "p") == delimited(1, b"p") + delimited(7, b"tensor")


@given(infer_requests(), texts(), texts())
def test_replace_may_be_done_again_for_another_try(request_, first, second):
    head = read_head(request_.SerializeToString())
    with_name(head, first)
    request_.model_name = second
    assert kfs.ModelInferRequest.FromString(with_name(head, second)) == request_


HOSTILE = {
    "a length that goes beyond the end": b"\x0a\x50abc",
    "a length of almost 2^64": b"\x0a" + b"\xff" * 9 + b"\x01",
    "a varint without end": b"\x08" + b"\xff" * 11,
    "a tag that is cut off": b"\x80",
    "field number zero": b"\x00\x01",
    "a group that does not end": tag(1000, GROUP) + b"\x08\x01",
    "a group that ends another": tag(1000, GROUP) + tag(1001, END_GROUP),
    "an end without a group": tag(1000, END_GROUP),
    "groups nested without end": tag(1000, GROUP) * 100_000,
    "a wire type that there is not": b"\x0e",
    "a name that is not UTF-8": delimited(1, b"\xff\xfe"),
    "a name of half a surrogate pair": delimited(1, b"\xed\xa0\x80"),
    "a fixed number that is cut off": tag(1000, FIXED64) + b"1234",
}


@pytest.mark.parametrize("message", HOSTILE.values(), ids=HOSTILE)
def test_message_that_is_none_is_an_invalid_request(message):
    with pytest.raises(InvalidRequest) as caught:
        read_head(message, "name")
    assert caught.value.field == "name"
    assert f"({len(message)} bytes)" in caught.value.problem
    assert len(caught.value.message) < 500


@given(st.binary(max_size=300))
@example(b"\x08\x01")
def test_any_bytes_are_a_message_or_an_invalid_request(message):
    try:
        head = read_head(message)
    except InvalidRequest:
        return
    out = with_name(head, "n")
    again = read_head(out)
    assert again.name == "n"
    assert with_name(again, "n") == out


@given(infer_requests(), st.data())
def test_damaged_message_is_a_message_or_an_invalid_request(request_, data):
    message = bytearray(request_.SerializeToString())
    if message:
        place = data.draw(st.integers(0, len(message) - 1))
        message[place] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        with_name(read_head(bytes(message)), "n")
