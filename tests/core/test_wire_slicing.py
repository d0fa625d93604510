"""Large messages are sliced where they are plain, and then just as protobuf would have it."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from mesh.wire.infer import LARGE_BYTES, read_head, with_name
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb.wml_head_pb2 import Head
from mesh.wire.slicing import MOST_FIELDS, Sliced, slice_name
from tests.support.strategies import infer_requests, texts


@given(infer_requests(), texts(min_size=1), texts())
def test_sliced_message_is_replaced_as_the_parser_would(request_, old, new):
    request_.model_name = old
    message = request_.SerializeToString()
    sliced = slice_name(message)
    if sliced is not None:
        assert sliced.name == old
        expected = kfs.ModelInferRequest.FromString(message)
        expected.model_name = new
        assert kfs.ModelInferRequest.FromString(with_name(sliced, new)) == expected


@given(infer_requests(), st.data())
def test_damaged_message_is_never_sliced_where_the_parser_refuses_it(request_, data):
    request_.model_name = "p"
    message = bytearray(request_.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message[: data.draw(st.integers(0, len(message)))])
    _agrees(damaged)


@given(st.binary(max_size=40))
def test_any_bytes_are_sliced_only_as_the_parser_reads_them(tail):
    _agrees(b"\x0a\x01p" + tail)


def _agrees(message: bytes) -> None:
    sliced = slice_name(message)
    if sliced is None:
        return
    try:
        head = Head.FromString(message)
    except DecodeError:
        pytest.fail(f"sliced, but no message: {message!r}")
    assert head.name == sliced.name
    assert with_name(sliced, "q") == with_name(head, "q")


def test_large_plain_message_is_sliced_and_a_small_one_is_not():
    request = kfs.ModelInferRequest(model_name="p", raw_input_contents=[bytes(LARGE_BYTES)])
    assert isinstance(read_head(request.SerializeToString()), Sliced)
    small = kfs.ModelInferRequest(model_name="p", raw_input_contents=[bytes(10)])
    assert isinstance(read_head(small.SerializeToString()), Head)


def test_large_message_that_is_not_plain_is_read_by_the_parser():
    large = kfs.ModelInferRequest(raw_input_contents=[bytes(LARGE_BYTES)]).SerializeToString()
    name = kfs.ModelInferRequest(model_name="p").SerializeToString()
    head = read_head(large + name)
    assert isinstance(head, Head)
    assert head.name == "p"
    assert with_name(head, "q") == b"\x0a\x01q" + large


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x0a",
        b"\x0a\x02p",
        b"\x0a\x01\xff",
        b"\x0a\x81\x00p",
        b"\x0a\x01p\x0a\x01q",
        b"\x0a\x01p\x82\x01\x00",
        b"\x0a\x01p\x1b\x1c",
        b"\x0a\x01p\x19\x00",
        b"\x0a\x01p\x10" + b"\x80" * 5 + b"\x01",
        b"\x0a\x01p" + b"\x12\x00" * MOST_FIELDS,
    ],
    ids=[
        "empty",
        "no length",
        "cut name",
        "no text",
        "long length",
        "two names",
        "field 16",
        "group",
        "cut field",
        "long number",
        "many fields",
    ],
)
def test_message_that_is_not_plain_is_not_sliced(message):
    assert slice_name(message) is None
