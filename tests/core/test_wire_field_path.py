"""A string at a path of field numbers: protobuf itself says what is right."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidRequest
from mesh.wire.field_path import read_string, replace_string

NAME, JAVA_PACKAGE = (1,), (8, 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """A message, maybe with an option inside an option's message, maybe with unknown fields."""
    file = FileDescriptorProto(dependency=draw(st.lists(TEXTS, max_size=3)))
    if draw(st.booleans()):
        file.name = draw(TEXTS)
    if draw(st.booleans()):
        file.options.java_outer_classname = draw(TEXTS)
    if draw(st.booleans()):
        file.options.java_package = draw(TEXTS)
    return file.SerializeToString() + draw(st.sampled_from(UNKNOWN))


# A varint, a fixed64, a fixed32, a group with the name's number within, a field 1 that is a varint.
UNKNOWN = (
    b"",
    b"\xc0\x3e\x96\x01",
    b"\xc1\x3e" + bytes(8),
    b"\xc5\x3e" + bytes(4),
    b"\xc3\x3e\x0a\x01x\xc4\x3e",
    b"\x08\x01",
)
MERGED = st.lists(files(), max_size=4).map(b"".join)


@given(MERGED)
def test_a_string_is_read_as_protobuf_merges_it(message: bytes) -> None:
    file = FileDescriptorProto.FromString(message)
    assert read_string(message, NAME) == file.name
    assert read_string(message, JAVA_PACKAGE) == file.options.java_package


@given(MERGED, TEXTS)
def test_a_replaced_string_changes_nothing_else(message: bytes, text: str) -> None:
    wanted = FileDescriptorProto.FromString(message)
    wanted.options.java_package = text
    replaced = replace_string(message, JAVA_PACKAGE, text)
    found = FileDescriptorProto.FromString(replaced)
    assert found.SerializeToString(deterministic=True) == wanted.SerializeToString(
        deterministic=True
    )
    assert read_string(replaced, JAVA_PACKAGE) == text


@given(MERGED, TEXTS)
def test_putting_the_old_string_back_gives_the_old_bytes(message: bytes, text: str) -> None:
    if old := read_string(message, JAVA_PACKAGE):
        replaced = replace_string(message, JAVA_PACKAGE, text)
        assert replace_string(replaced, JAVA_PACKAGE, old) == message


@given(st.binary(max_size=60), st.lists(st.integers(1, 20), min_size=1, max_size=4).map(tuple))
def test_hostile_bytes_give_one_error(message: bytes, path: tuple[int, ...]) -> None:
    try:
        read_string(message, path)
        assert read_string(replace_string(message, path, "id"), path) == "id"
    except InvalidRequest:
        pass


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x0a", id="no length"),
        pytest.param(b"\x0a\x05abc", id="cut off"),
        pytest.param(b"\x00\x01", id="field 0"),
        pytest.param(b"\x0e", id="wire type 6"),
        pytest.param(b"\x80" * 10 + b"\x01", id="endless varint"),
        pytest.param(b"\xff\xff\xff\xff\x7f", id="tag too large"),
        pytest.param(b"\x0b", id="group not ended"),
        pytest.param(b"\x0c", id="group not begun"),
        pytest.param(b"\x0b\x14", id="another group ended"),
        pytest.param(b"\x0b" * 101 + b"\x0c" * 101, id="groups too deep"),
        pytest.param(b"\x0a\x01\xff", id="no UTF-8"),
    ],
)
def test_broken_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_string(message, NAME)


def test_a_long_string_moves_the_lengths_of_all_messages_around_it() -> None:
    nested = replace_string(b"", (3, 2, 1), "a")
    assert nested == b"\x1a\x05\x12\x03\x0a\x01a"
    assert read_string(replace_string(nested, (3, 2, 1), "b" * 300), (3, 2, 1)) == "b" * 300
