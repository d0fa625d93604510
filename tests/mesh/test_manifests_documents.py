"""Text to documents: what YAML and JSON give, and the bounds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.wire.documents import MAX_BYTES, InvalidManifest, load_documents

LAUGHS = "x: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


def problem(text: str) -> str:
    with pytest.raises(InvalidManifest) as caught:
        load_documents(text)
    (found,) = caught.value.problems
    return found


def test_several_documents_in_order_without_empty_ones():
    assert load_documents("---\na: 1\n---\n---\nb: 2\n...\n") == [{"a": 1}, {"b": 2}]
    assert load_documents("") == []


def test_list_is_its_items():
    assert load_documents("kind: List\nitems: [{a: 1}, {b: 2}]\n---\nc: 3") == [
        {"a": 1},
        {"b": 2},
        {"c": 3},
    ]


def test_json_may_be_indented_by_tabs():
    assert load_documents('{\n\t"a":\t1\n}\n') == [{"a": 1}]


def test_flow_mapping_that_is_no_json_is_yaml():
    assert load_documents("{a: b}") == [{"a": "b"}]


def test_timestamps_stay_strings_and_numbers_do_not():
    assert load_documents("a: 2024-01-01T00:00:00Z\nb: 2024-01-01\nc: 1") == [
        {"a": "2024-01-01T00:00:00Z", "b": "2024-01-01", "c": 1}
    ]


def test_aliases_and_merges_are_written_out():
    assert load_documents("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}") == [
        {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}}
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3", "line 3, column 1: field 'a' is given twice"),
        ("x:\n  - a: 1\n    a: 1", "line 3, column 5: field 'a' is given twice"),
        ('{"b": {"a": 1, "a": 2}}', "field 'a' is given twice"),
        ("a: [1\nb: 2", "line 2, column 2: did not find expected ',' or ']'"),
        ("a: *b", "line 1, column 4: found undefined alias"),
        ("? [1]\n: 2", "line 1, column 3: found unhashable key"),
        ("a: !!int x", "invalid literal for int() with base 10: 'x'"),
        ("\x00", "unacceptable character #x0000: control characters are not allowed"),
        ("[" * 900_000, "nested deeper than 64"),
        ("- " * 400_000, "nested deeper than 64"),
        ("&a [*a]", "more than 100000 values"),
        (LAUGHS, "more than 100000 values"),
        ("- 1\n" * 100_001, "more than 100000 values"),
        ("a: " + "x" * MAX_BYTES, "larger than 1048576 bytes"),
        ("a: " + "ä" * (MAX_BYTES // 2), "larger than 1048576 bytes"),
    ],
    ids=range(15),
)
@pytest.mark.timeout(5)
def test_what_cannot_be_taken_says_why(text, expected):
    assert problem(text) == expected


@pytest.mark.parametrize(
    "text", ['{"a":' * 100_000, '{"a":' + "9" * 5000 + "}", "a: " + "9" * 5000]
)
def test_too_deep_or_long_for_python_is_refused(text):
    assert problem(text)


def test_no_python_object_is_made():
    assert "could not determine a constructor" in problem("a: !!python/object/apply:os.getcwd []")


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="a:-[]{}&*<>|?!'\"#%,1 \n\t\\é\x00\ud800", max_size=60))
def test_any_text_gives_documents_or_one_error(text):
    try:
        load_documents(text)
    except InvalidManifest as error:
        error.message.encode()
