"""Reads that break go on where they stopped, for a bounded time, and are checked as a whole."""

import hashlib
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.storage.checksums import Checksum
from mesh.storage.port import ObjectChanged, ReadBroken, ReadCut, StoreUnreachable
from mesh.storage.resumption import Patience, read_whole
from tests.support.fake_object_store import FakeObjectStore

CONTENT = bytes(range(100))
PAUSES_S = (1.0, 2.0)


class Reader:
    """Reads the object `m` of a store, and notes the pauses instead of making them."""

    def __init__(self, content: bytes = CONTENT, **store) -> None:
        self.store = FakeObjectStore({"m": content}, **store)
        self.paused = list[float]()

    def read(self) -> bytes:
        (item,) = self.store.listing("m").objects
        patience = Patience(PAUSES_S, self.paused.append, progress_bytes=10)
        with closing(read_whole(self.store, item, patience)) as chunks:
            return b"".join(chunks)


def sha256(content: bytes = CONTENT) -> dict[str, Checksum]:
    return {"m": Checksum("SHA256", hashlib.sha256(content).digest())}


def test_read_that_breaks_goes_on_where_it_stopped():
    reader = Reader(cuts={"m": [30, 9]}, checksums=sha256())
    assert reader.read() == CONTENT
    assert reader.store.starts == [0, 30, 39]
    assert reader.paused == [1.0, 2.0]


def test_read_that_breaks_too_often_fails_as_it_broke():
    reader = Reader(cuts={"m": [30, 0, 9]})
    with pytest.raises(ReadCut, match="object 'm' came broken: cut"):
        reader.read()
    assert reader.store.starts == [0, 30, 30]
    assert reader.paused == [1.0, 2.0]


def test_read_that_makes_progress_may_break_again():
    reader = Reader(cuts={"m": [10, 9, 10, 9]})
    assert reader.read() == CONTENT
    assert reader.paused == [1.0, 2.0, 1.0, 2.0]


def test_read_of_a_store_that_goes_away_goes_on_when_it_is_back():
    is_away = [False, True, False]

    def before_read(name: str) -> None:
        if is_away.pop(0):
            raise StoreUnreachable("away")

    reader = Reader(cuts={"m": [30]}, before_read=before_read)
    assert reader.read() == CONTENT
    assert reader.store.starts == [0, 30, 30]


def test_read_of_a_store_that_stays_away_says_so():
    def before_read(name: str) -> None:
        raise StoreUnreachable("away")

    reader = Reader(before_read=before_read)
    with pytest.raises(StoreUnreachable, match="away"):
        reader.read()
    assert reader.store.starts == [0, 0, 0]


def test_read_of_an_object_that_changed_is_not_tried_again():
    def before_read(name: str) -> None:
        if reader.store.starts[-1]:
            raise ObjectChanged(name, "memory")

    reader = Reader(cuts={"m": [30]}, before_read=before_read)
    with pytest.raises(ObjectChanged):
        reader.read()
    assert reader.store.starts == [0, 30]


def test_read_that_breaks_after_the_last_byte_is_whole():
    reader = Reader(cuts={"m": [100]}, checksums=sha256())
    assert reader.read() == CONTENT
    assert reader.store.starts == [0]


def test_read_of_an_empty_object_that_breaks_is_tried_again():
    reader = Reader(b"", cuts={"m": [0]}, checksums=sha256(b""))
    assert reader.read() == b""
    assert reader.store.starts == [0, 0]


@pytest.mark.parametrize("cuts", [[], [30], [0]])
def test_read_that_is_not_what_the_store_has_is_broken(cuts):
    reader = Reader(cuts={"m": cuts}, checksums=sha256(b"another"))
    with pytest.raises(ReadBroken, match="its SHA256 is not the store's") as caught:
        reader.read()
    assert not isinstance(caught.value, ReadCut)


def test_read_of_fewer_bytes_than_listed_is_broken():
    with pytest.raises(ReadCut, match="it has 100 of 101 bytes"):
        Reader(listed_bytes={"m": 101}).read()


def test_read_of_more_bytes_than_listed_is_broken():
    with pytest.raises(ReadBroken, match="it has over 99 bytes"):
        Reader(listed_bytes={"m": 99}).read()


@given(st.binary(max_size=60), st.lists(st.integers(0, 20), max_size=len(PAUSES_S)))
def test_read_however_it_breaks_is_the_object(content, cuts):
    left, kept = len(content), list[int]()
    for cut in cuts:
        kept.append(min(cut, left))
        left -= kept[-1]
    reader = Reader(content, cuts={"m": kept}, checksums=sha256(content))
    assert reader.read() == content
