"""The Secret as files. Following it was tried by hand on a real API server, and has no test yet."""

from mesh.storage.secret_mirror import write


def test_folder_holds_the_entries_and_nothing_else(tmp_path):
    folder = tmp_path / "keys"
    write(folder, {"a": b"1", "b": b"2"})
    (folder / ".a").write_bytes(b"left by a write that did not end")
    write(folder, {"b": b"3", "c": b"4"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"b": b"3", "c": b"4"}


def test_files_are_for_our_user_alone(tmp_path):
    write(tmp_path, {"a": b"1"})
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_entry_that_is_the_same_is_not_written_again(tmp_path):
    write(tmp_path, {"a": b"1"})
    before = (tmp_path / "a").stat()
    write(tmp_path, {"a": b"1"})
    assert (tmp_path / "a").stat().st_ino == before.st_ino


def test_names_that_are_no_plain_file_are_left_out(tmp_path):
    folder = tmp_path / "keys"
    write(folder, dict.fromkeys(("", ".", "..", "../out", "a/b", ".hidden", "z\x00", "ok"), b"x"))
    assert [path.name for path in folder.iterdir()] == ["ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


def test_gone_secret_leaves_an_empty_folder(tmp_path):
    write(tmp_path, {"a": b"1"})
    write(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
