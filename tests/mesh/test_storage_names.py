"""Object names: which become files, and which are refused by name."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.storage.names import check_apart, check_path, safe_place
from mesh.storage.port import UnsafeName

HOSTILE = [
    "../x",
    "a/../../x",
    "a/..",
    "..",
    ".",
    "/etc/passwd",
    "a//b",
    "a\\..\\b",
    "nul\0byte",
    "new\nline",
    "esc\x1b[2J",
    "right\u202eto-left",
    "",
]


@pytest.mark.parametrize("relative", HOSTILE)
def test_safe_place_hostile_name_is_refused_and_named(relative):
    with pytest.raises(UnsafeName) as caught:
        safe_place(f"m/{relative}", relative)
    assert repr(f"m/{relative}") in caught.value.reason
    assert caught.value.reason.isprintable()


@pytest.mark.parametrize("relative", ["x", "a/b.c", "..x", "x..", "…", "sp ace", "é/ü", "-rf", "~"])
def test_safe_place_ordinary_name_is_kept(relative):
    assert safe_place(relative, relative) == PurePosixPath(relative)


@given(st.text() | st.lists(st.sampled_from(["..", ".", "a", "", "\\"])).map("/".join))
def test_safe_place_any_name_stays_below_the_target_or_is_refused(relative):
    target = Path("/somewhere/target")
    try:
        place = safe_place(relative, relative)
    except UnsafeName:
        return
    resolved = (target / place).resolve()
    assert resolved.is_relative_to(target)
    assert resolved != target
    assert str(place) == relative


def test_check_path_slash_before_it_does_not_count():
    assert check_path("/a/b") == check_path("a/b") == "a/b"
    assert check_path("a/b/") == "a/b/"


@pytest.mark.parametrize("path", ["", "/", "../a", "a/../b", "a\0"])
def test_check_path_that_names_nothing_or_climbs_is_refused(path):
    with pytest.raises(UnsafeName):
        check_path(path)


def test_check_apart_same_file_twice_is_refused():
    with pytest.raises(UnsafeName, match="same file"):
        check_apart([("m/a", PurePosixPath("a")), ("s/a", PurePosixPath("a"))])


def test_check_apart_file_that_is_also_a_folder_is_refused():
    with pytest.raises(UnsafeName, match="needs a folder"):
        check_apart([("m/a", PurePosixPath("a")), ("m/a/b", PurePosixPath("a/b"))])
