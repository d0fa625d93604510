"""The journal on a real folder: restarts, crashes half-way, keys of any kind, a failing disk."""

import json
import logging
import resource
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.errors import Unavailable
from mesh.registry.journal import INTENT, FileJournal
from mesh.registry.memory import MemoryRegistry
from mesh.registry.port import Delete, Put

KEPT = ("predictors/", "models/")
WEIRD = [
    "predictors/../x",
    "predictors//etc/passwd",
    "predictors/..",
    "predictors/Ünïcode/模型",
    "predictors/\U0001f600" * 30,
    "predictors/" + "x" * 239,
    "predictors/" + "/" * 239,
    "predictors/line\nbreak\0",
    "predictors/100%25",
    "predictors/.tmp",
    "models/commit.json",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal"


@pytest.fixture
def journal(folder: Path) -> FileJournal:
    """Ready for use, as after the start of a process."""
    journal = FileJournal(folder, KEPT)
    assert journal.load() == {}
    return journal


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def leave_intent(folder: Path, **changes: bytes | None) -> None:
    """As a process leaves it that dies right after its commit was decided."""
    intent = {
        f"models/{name}": None if value is None else b64encode(value).decode()
        for name, value in changes.items()
    }
    (folder / INTENT).write_text(json.dumps(intent))


def test_load_of_a_missing_folder_makes_it_private(folder):
    assert FileJournal(folder, KEPT).load() == {}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_loaded_after_a_restart(journal, folder):
    journal.write({"models/a": b"1", "predictors/p": b"\n\x00\xff\n"})
    journal.write({"models/b": b""})
    journal.write({"models/a": b"2"})
    found = FileJournal(folder, KEPT).load()
    assert found == {"models/a": b"2", "models/b": b"", "predictors/p": b"\n\x00\xff\n"}


def test_deleted_key_has_no_file_left(journal, folder):
    journal.write({"models/a": b"1", "models/b": b"2"})
    journal.write({"models/a": None, "models/never-there": None})
    assert names(folder) == {journal.path_of("models/b").name}
    assert FileJournal(folder, KEPT).load() == {"models/b": b"2"}


def test_only_keys_below_the_prefixes_are_its_concern(journal, folder):
    assert journal.concerns("models/a")
    assert not journal.concerns("copies/models/a")
    journal.write({"models/a": b"1"})
    assert FileJournal(folder, ("predictors/",)).load() == {}


@pytest.mark.parametrize("key", WEIRD, ids=range(len(WEIRD)))
def test_weird_key_stays_in_the_folder_and_comes_back(journal, folder, tmp_path, key):
    journal.write({key: b"1", "models/other": b"2"})
    assert journal.path_of(key).resolve().parent == folder
    assert names(folder) == {journal.path_of(key).name, journal.path_of("models/other").name}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(folder.iterdir())
    assert FileJournal(folder, KEPT).load() == {key: b"1", "models/other": b"2"}


def test_keys_that_begin_alike_have_files_of_their_own(journal, folder):
    long = "models/" + "x" * 243
    journal.write({long: b"1", long[:-1] + "y": b"2"})
    assert FileJournal(folder, KEPT).load() == {long: b"1", long[:-1] + "y": b"2"}


def test_leftovers_of_a_crash_are_removed(journal, folder):
    journal.write({"models/a": b"1"})
    (folder / f"{INTENT}.tmp").write_bytes(b'{"models/a": nu')
    journal.path_of("models/b").with_suffix(".entry.tmp").write_bytes(b"models/b\nhal")
    assert FileJournal(folder, KEPT).load() == {"models/a": b"1"}
    assert names(folder) == {journal.path_of("models/a").name}


@pytest.mark.parametrize("is_half_applied", [False, True])
def test_crash_after_a_commit_was_decided_completes_it(journal, folder, is_half_applied):
    journal.write({"models/a": b"1", "models/b": b"1", "models/c": b"1"})
    if is_half_applied:
        journal.path_of("models/a").unlink()
    leave_intent(folder, a=None, b=b"2", d=b"2")
    after = FileJournal(folder, KEPT).load()
    assert after == {"models/b": b"2", "models/c": b"1", "models/d": b"2"}
    assert INTENT not in names(folder)


def test_commit_left_undone_is_completed_before_the_next_write(journal, folder):
    leave_intent(folder, a=b"1", b=b"1")
    journal.write({"models/a": b"2"})
    assert FileJournal(folder, KEPT).load() == {"models/a": b"2", "models/b": b"1"}


def test_folder_that_is_gone_is_reported_and_writing_resumes_once_it_is_back(journal, folder):
    folder.rmdir()
    with pytest.raises(Unavailable, match=r"could not be written: No such file .*journal"):
        journal.write({"models/a": b"1"})
    folder.mkdir()
    journal.write({"models/b": b"2"})
    assert FileJournal(folder, KEPT).load() == {"models/b": b"2"}


def test_intent_that_cannot_be_put_in_place_leaves_nothing(journal, folder):
    (folder / f"{INTENT}.tmp").mkdir()
    with pytest.raises(Unavailable):
        journal.write({"models/a": b"1"})
    (folder / f"{INTENT}.tmp").rmdir()
    assert names(folder) == set()


@contextmanager
def room_for(file_bytes: int) -> Iterator[None]:
    """Writing on in a file beyond this size fails, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_disk_that_fills_up_in_mid_write_leaves_nothing_of_the_commit(journal, folder):
    journal.write({"models/a": b"1"})
    with room_for(500), pytest.raises(Unavailable, match="could not be written: File too large"):
        journal.write({"models/a": b"2" * 1000, "models/b": b"2"})
    assert names(folder) == {journal.path_of("models/a").name}
    assert FileJournal(folder, KEPT).load() == {"models/a": b"1"}


def test_failure_after_the_decision_counts_as_stored_and_is_made_up_for(journal, folder, caplog):
    in_the_way = journal.path_of("models/a")
    in_the_way.mkdir()
    with caplog.at_level(logging.WARNING):
        journal.write({"models/a": b"1", "models/b": b"1"})
    assert "lag behind" in caplog.text
    assert not any(name.endswith(".tmp") for name in names(folder))
    with pytest.raises(Unavailable):
        journal.write({"models/c": b"2"})
    in_the_way.rmdir()
    journal.write({"models/d": b"3"})
    found = FileJournal(folder, KEPT).load()
    assert found == {"models/a": b"1", "models/b": b"1", "models/d": b"3"}


def test_unreadable_folder_is_reported_by_load(folder):
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with pytest.raises(Unavailable, match="could not be read"):
        FileJournal(folder, KEPT).load()


@pytest.mark.parametrize("content", [b"", b"no line end", b"models/other\n1", b"\xff\n1"])
def test_damaged_entry_is_set_aside_and_the_rest_loaded(journal, folder, caplog, content):
    journal.write({"models/a": b"1", "models/b": b"2"})
    journal.path_of("models/a").write_bytes(content)
    assert FileJournal(folder, KEPT).load() == {"models/b": b"2"}
    assert "damaged" in caplog.text
    assert journal.path_of("models/a").name + ".broken" in names(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"models/a": 1}', '{"models/a": "%"}'])
def test_damaged_intent_is_set_aside(journal, folder, caplog, content):
    journal.write({"models/a": b"1"})
    (folder / INTENT).write_text(content)
    assert FileJournal(folder, KEPT).load() == {"models/a": b"1"}
    assert "damaged" in caplog.text


CHANGES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300).map("models/".__add__),
    st.none() | st.binary(max_size=8),
    min_size=1,
    max_size=3,
)


@given(commits=st.lists(CHANGES, max_size=5))
@settings(max_examples=25, deadline=None)
def test_loaded_equals_a_dictionary_after_any_commits(tmp_path_factory, commits):
    folder = tmp_path_factory.mktemp("journal")
    journal, model = FileJournal(folder, KEPT), dict[str, bytes]()
    journal.load()
    for changes in commits:
        journal.write(changes)
        for key, value in changes.items():
            model.pop(key, None)
            model |= {} if value is None else {key: value}
    assert FileJournal(folder, KEPT).load() == model


async def test_memory_store_on_a_journal_survives_a_restart(journal, folder):
    registry = MemoryRegistry(journal=journal)
    lease = await registry.grant(10)
    await registry.commit([Put("predictors/p", b"1"), Put("models/m", b"2"), Put("nodes/n", b"3")])
    await registry.commit([Put("models/leased", b"4", lease)])
    await registry.commit([Delete("models/m")])
    await registry.close()
    again = FileJournal(folder, KEPT)
    restarted = MemoryRegistry(initial=again.load(), journal=again)
    entries = (await restarted.list("")).entries
    assert [(entry.key, entry.value) for entry in entries] == [("predictors/p", b"1")]


async def test_disk_that_fails_leaves_the_memory_store_unchanged(journal, folder):
    registry = MemoryRegistry(journal=journal)
    revision = await registry.commit([Put("nodes/n", b"1")])
    folder.rmdir()
    with pytest.raises(Unavailable):
        await registry.commit([Put("models/m", b"2"), Delete("nodes/n")])
    snapshot = await registry.list("")
    assert [entry.key for entry in snapshot.entries] == ["nodes/n"]
    assert snapshot.revision == revision
