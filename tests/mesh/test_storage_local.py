"""Keys of type `local`: files of this machine, of allowed folders and of nowhere else."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.core.ids import StorageKey
from mesh.core.spec import LOCAL_FILES
from mesh.ops.settings import AdapterSettings, InvalidSettings
from mesh.storage.keys import StorageKeys
from mesh.storage.local import LocalStore
from mesh.storage.port import (
    AccessRefused,
    BucketNotFound,
    KeyInvalid,
    ObjectChanged,
    ObjectNotFound,
    StorageError,
    StoreFailed,
    TooManyObjects,
    UnsafeName,
)
from mesh.storage.pull import Puller
from mesh.storage.transfer import PullRequest


@pytest.fixture
def root(tmp_path):
    """The folder of models that the key `k` names."""
    folder = tmp_path / "allowed" / "root"
    folder.mkdir(parents=True)
    write_key(tmp_path, folder)
    return folder


@pytest.fixture
def target(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models" / "t"


def write_key(tmp_path: Path, root: Path) -> None:
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "k").write_text(json.dumps({"type": "local", "root": str(root)}))


def puller(tmp_path: Path, roots: Sequence[Path] | None = None) -> Puller:
    allowed = [tmp_path / "allowed"] if roots is None else roots
    return Puller(StorageKeys(tmp_path / "config"), local_roots=allowed, pauses_s=())


async def refused(
    pulls: Puller, path: str, target: Path, key: str = "k", **more: str
) -> StorageError:
    """The error of a pull that must fail, having left nothing."""
    with pytest.raises(StorageError) as caught:
        await pulls.pull(PullRequest(StorageKey(key), path, **more), target)
    assert list(target.parent.iterdir()) == []
    assert caught.value.reason.isprintable()
    return caught.value


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def write(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


async def test_pull_file_with_and_without_a_slash_before_it(tmp_path, root, target):
    content = os.urandom(2_500_000)
    write(root, {"sub/m.joblib": content})
    for path in ("sub/m.joblib", "/sub/m.joblib"):
        pulled = await puller(tmp_path).pull(PullRequest(StorageKey("k"), path), target)
        assert pulled.path == target / "m.joblib"
        assert pulled.path.read_bytes() == content
        assert (pulled.size_bytes, pulled.files) == (2_500_000, 1)


async def test_pull_folder_keeps_its_structure_and_its_empty_folders(tmp_path, root, target):
    write(root, {"m/a": b"a", "m/sub/b": b"b", "m/sub/.c": b"", "m.old/x": b"", "mm": b""})
    (root / "m" / "empty").mkdir()
    for path in ("m", "/m/"):
        pulled = await puller(tmp_path).pull(PullRequest(StorageKey("k"), path), target)
        assert (pulled.path, pulled.files, pulled.size_bytes) == (target, 3, 2)
        assert files(target) == {"a": b"a", "sub/b": b"b", "sub/.c": b""}
        assert (target / "empty").is_dir()


async def test_pull_schema_and_progress_are_as_of_any_store(tmp_path, root, target):
    write(root, {"m/a": b"aa", "s.json": b"{}"})
    seen = list[tuple[int, int]]()
    request = PullRequest(StorageKey("k"), "m", schema_path="s.json")
    pulled = await puller(tmp_path).pull(request, target, lambda *each: seen.append(each))
    assert pulled.schema is not None
    assert pulled.schema.read_bytes() == b"{}"
    assert (seen[0], seen[-1]) == ((0, 4), (4, 4))


async def test_pull_copies_so_that_neither_changes_the_other(tmp_path, root, target):
    write(root, {"m": b"one"})
    pulled = await puller(tmp_path).pull(PullRequest(StorageKey("k"), "m"), target)
    pulled.path.write_bytes(b"two")
    assert (root / "m").read_bytes() == b"one"


async def test_pull_links_that_stay_in_the_root_are_followed(tmp_path, root, target):
    write(root, {"v1/a": b"a", "shared/b": b"b"})
    (root / "current").symlink_to("v1")
    (root / "v1" / "b").symlink_to("../shared/b")
    (root / "v1" / "more").symlink_to(root / "shared")
    pulled = await puller(tmp_path).pull(PullRequest(StorageKey("k"), "current"), target)
    assert files(target) == {"a": b"a", "b": b"b", "more/b": b"b"}
    assert not any(path.is_symlink() for path in pulled.path.rglob("*"))


@pytest.mark.parametrize("roots", [[], ["allowed/other"], ["allowed/root/sub"], ["allowed/roo"]])
async def test_pull_root_that_is_not_allowed_is_refused(tmp_path, root, target, roots):
    write(root, {"m": b"m"})
    error = await refused(puller(tmp_path, [tmp_path / each for each in roots]), "m", target)
    assert isinstance(error, AccessRefused)
    assert error.reason == (
        f"folder '{root}' is not in LOCAL_STORAGE_ROOTS (storage key 'k')"
        if roots
        else "type local is not allowed here, LOCAL_STORAGE_ROOTS is empty (storage key 'k')"
    )


async def test_pull_root_that_leads_out_of_what_is_allowed_is_refused(tmp_path, root, target):
    write(tmp_path / "secret", {"m": b"m"})
    for way in ("link", "../secret", "root/../../secret"):
        (tmp_path / "allowed" / "link").unlink(missing_ok=True)
        (tmp_path / "allowed" / "link").symlink_to(tmp_path / "secret")
        write_key(tmp_path, tmp_path / "allowed" / way)
        error = await refused(puller(tmp_path), "m", target)
        assert isinstance(error, AccessRefused)
        assert "is not in LOCAL_STORAGE_ROOTS" in error.reason


async def test_pull_file_by_its_own_path(tmp_path, root, target):
    write(root, {"m/a": b"a", "schema": b"{}"})
    request = PullRequest(LOCAL_FILES, f"{root}/m", schema_path=f"{root}/schema")
    pulled = await puller(tmp_path).pull(request, target)
    assert files(target) == {"a": b"a", "_schema.json": b"{}"}
    assert pulled.files == 1


async def test_pull_file_by_a_path_through_a_linked_root(tmp_path, root, target):
    write(root, {"m": b"m"})
    (tmp_path / "linked").symlink_to(tmp_path / "allowed")
    pulls = puller(tmp_path, [tmp_path / "linked"])
    await pulls.pull(PullRequest(LOCAL_FILES, f"{tmp_path}/linked/root/m"), target)
    assert files(target) == {"m": b"m"}


@pytest.mark.parametrize("path", ["secret", "nothing", "secret/nothing", "allowedx/m"])
async def test_pull_file_outside_the_roots_says_nothing_of_it(tmp_path, root, target, path):
    write(tmp_path, {"secret": b"s", "allowedx/m": b"s"})
    error = await refused(puller(tmp_path), f"{tmp_path}/{path}", target, key=LOCAL_FILES)
    assert isinstance(error, AccessRefused)
    assert error.reason == f"file '{tmp_path}/{path}' is not in LOCAL_STORAGE_ROOTS"


async def test_pull_file_by_a_path_that_leads_out_of_the_roots_is_refused(tmp_path, root, target):
    write(tmp_path, {"secret": b"s"})
    (root / "link").symlink_to(tmp_path / "secret")
    for way, reason in (("link", "it is a link that leads out"), ("../../secret", "it has '..'")):
        error = await refused(puller(tmp_path), f"{root}/{way}", target, key=LOCAL_FILES)
        assert isinstance(error, UnsafeName)
        assert reason in error.reason


async def test_pull_file_by_its_own_path_where_there_are_no_roots_is_refused(tmp_path, target):
    error = await refused(puller(tmp_path, []), "/etc/passwd", target, key=LOCAL_FILES)
    assert error.reason == "file:// is not allowed here, LOCAL_STORAGE_ROOTS is empty"


@pytest.mark.parametrize("roots", ["models", "/models:more", ":/models", "/models:", "/a::/b"])
def test_setting_that_is_no_list_of_absolute_paths_is_refused(roots):
    given = {"ADAPTER_SOCKET": "/a.sock", "CONTAINER_MEM_REQ_BYTES": "1000000000"}
    with pytest.raises(InvalidSettings, match="LOCAL_STORAGE_ROOTS: "):
        AdapterSettings.read({**given, "LOCAL_STORAGE_ROOTS": roots})


async def test_pull_allowed_folder_may_itself_be_a_link(tmp_path, root, target):
    write(root, {"m": b"m"})
    (tmp_path / "alias").symlink_to("allowed")
    pulls = puller(tmp_path, [tmp_path / "alias"])
    assert (await pulls.pull(PullRequest(StorageKey("k"), "m"), target)).files == 1


async def test_pull_root_that_is_not_there_says_so(tmp_path, root, target):
    write_key(tmp_path, root / "later")
    error = await refused(puller(tmp_path), "m", target)
    assert isinstance(error, BucketNotFound)
    assert error.reason == f"folder '{root}/later' does not exist (storage key 'k')"


async def test_pull_bucket_of_a_predictor_is_refused(tmp_path, root, target):
    error = await refused(puller(tmp_path), "m", target, bucket="models")
    assert isinstance(error, KeyInvalid)
    assert "type local has no buckets" in error.reason


@pytest.mark.parametrize("path", ["nothing", "m/deeper", "m/", "none", "x" * 300, "pipe"])
async def test_pull_what_is_no_model_names_path_and_folder(tmp_path, root, target, path):
    write(root, {"m": b"m"})
    (root / "none" / "empty").mkdir(parents=True)
    os.mkfifo(root / "pipe")
    error = await refused(puller(tmp_path), path, target)
    assert isinstance(error, ObjectNotFound)
    assert error.reason == f"no object or prefix {path!r} in folder '{root}'"


@pytest.mark.parametrize(
    "path", ["../root/m", "..", "m/../m", "/../m", "./m", "m\0", "m\n", "m\\n"]
)
async def test_pull_path_that_climbs_is_refused(tmp_path, root, target, path):
    write(root, {"m": b"m"})
    assert isinstance(await refused(puller(tmp_path), path, target), UnsafeName)


@pytest.mark.parametrize("path", ["out", "m", "far/secret", "rel/secret"])
async def test_pull_link_that_leaves_the_root_is_refused(tmp_path, root, target, path):
    write(tmp_path / "allowed", {"secret": b"s", "rooted/secret": b"s"})
    write(root, {"m/a": b"a"})
    (root / "out").symlink_to(tmp_path / "allowed" / "secret")
    (root / "m" / "out").symlink_to("../../rooted")
    (root / "far").symlink_to(tmp_path / "allowed")
    (root / "rel").symlink_to("../rooted")
    error = await refused(puller(tmp_path), path, target)
    assert isinstance(error, UnsafeName)
    assert "it is a link that leads out of its folder" in error.reason


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (".", "a folder that it is in"),
        ("..", "a folder that it is in"),
        ("link", "leads nowhere"),
        ("nothing", "leads nowhere"),
        ("a/deeper", "leads nowhere"),
    ],
)
async def test_pull_link_that_leads_to_no_file_is_refused(tmp_path, root, target, to, why):
    write(root, {"m/a": b"a"})
    (root / "m" / "link").symlink_to(to)
    error = await refused(puller(tmp_path), "m", target)
    assert isinstance(error, UnsafeName)
    assert why in error.reason
    assert "'m/link'" in error.reason


async def test_pull_path_that_is_a_link_to_itself_is_refused(tmp_path, root, target):
    (root / "m").symlink_to("m")
    error = await refused(puller(tmp_path), "m", target)
    assert isinstance(error, StoreFailed)
    assert error.reason.startswith(f"'{root}/m' cannot be read: Too many levels of symbolic links")


async def test_pull_links_in_circles_end(tmp_path, root):
    write(root, {"a/f": b"", "b/f": b""})
    (root / "a" / "to-b").symlink_to("../b")
    (root / "b" / "to-a").symlink_to("../a")
    with pytest.raises(TooManyObjects, match="holds more than 50 objects"):
        LocalStore("k", root, most_objects=50).listing("a")


def test_listing_of_as_many_files_as_a_model_can_have_is_taken(root):
    write(root, {"m/a": b"", "m/b": b"", "m/c/d": b""})
    assert len(LocalStore("k", root, most_objects=4).listing("m").objects) == 3
    with pytest.raises(TooManyObjects):
        LocalStore("k", root, most_objects=3).listing("m")


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\\b", os.fsdecode(b"a\xff")])
async def test_pull_file_with_a_name_that_is_not_safe_is_refused(tmp_path, root, target, name):
    write(root, {"m/a": b"", f"m/{name}": b""})
    assert isinstance(await refused(puller(tmp_path), "m", target), UnsafeName)


async def test_pull_neither_file_nor_folder_is_refused(tmp_path, root, target):
    write(root, {"m/a": b""})
    os.mkfifo(root / "m" / "pipe")
    error = await refused(puller(tmp_path), "m", target)
    assert isinstance(error, UnsafeName)
    assert "'m/pipe' is not safe as a file: it is neither a file nor a folder" in error.reason


def replaced(file: Path) -> None:
    file.with_name("new").write_bytes(b"new")
    file.with_name("new").replace(file)


def swapped_for_a_link_out(file: Path) -> None:
    outside = file.parents[2] / "outside"
    file.replace(outside)
    file.symlink_to(outside)


def swapped_for_a_link_in(file: Path) -> None:
    file.replace(file.with_name("moved"))
    file.symlink_to(write_another(file.parent))


def write_another(folder: Path) -> Path:
    (folder / "another").write_bytes(b"old")
    return folder / "another"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (replaced, ObjectChanged),
        (lambda file: file.write_bytes(b"new"), ObjectChanged),
        (lambda file: file.unlink(), ObjectChanged),
        (swapped_for_a_link_in, ObjectChanged),
        (swapped_for_a_link_out, UnsafeName),
    ],
)
def test_read_of_a_file_that_changed_since_the_listing_is_an_error(root, change, kind):
    write(root, {"m/a": b"old"})
    os.utime(root / "m" / "a", (1, 1))
    store = LocalStore("k", root)
    (item,) = store.listing("m").objects
    change(root / "m" / "a")
    with pytest.raises(kind), store.read(item) as reading:
        list(reading.chunks)


def test_read_of_a_file_that_changes_meanwhile_is_an_error(root):
    write(root, {"m": b"x" * 3_000_000})
    os.utime(root / "m", (1, 1))
    store = LocalStore("k", root)
    (item,) = store.listing("m").objects
    where = f"object 'm' in folder '{root}' changed while it was pulled"
    with store.read(item) as reading:
        next(reading.chunks)
        with (root / "m").open("r+b") as file:
            file.write(b"y")
        with pytest.raises(ObjectChanged, match=where):
            list(reading.chunks)


def test_read_from_a_byte_on_gives_the_rest(root):
    write(root, {"m": b"0123456789"})
    store = LocalStore("k", root)
    (item,) = store.listing("m").objects
    with store.read(item, 7) as reading:
        assert b"".join(reading.chunks) == b"789"


def test_read_error_names_the_file(root):
    write(root, {"m": b"m"})
    error = OSError(errno.EIO, "Input/output error", f"{root}/m")
    store = Failing(root, error)
    (item,) = store.listing("m").objects
    reason = f"'{root}/m' cannot be read: Input/output error"
    with pytest.raises(StoreFailed, match=reason), store.read(item) as reading:
        list(reading.chunks)


class Failing(LocalStore):
    """A disk with a fault: `error` comes of the second look at an open file."""

    def __init__(self, root: Path, error: OSError) -> None:
        super().__init__("k", root)
        self._error = error
        self._looks = 0

    def _check_same(self, descriptor, item) -> None:
        self._looks += 1
        if self._looks == 2:
            raise self._error


@pytest.mark.parametrize(
    ("number", "kind", "reason"),
    [
        (errno.EACCES, AccessRefused, "access to '{root}' denied (storage key 'k')"),
        (errno.EIO, StoreFailed, "'{root}' cannot be read: Input/output error (storage key 'k')"),
    ],
)
def test_read_that_the_system_refuses_is_in_words(root, number, kind, reason):
    write(root, {"m": b"m"})
    store = Failing(root, OSError(number, os.strerror(number)))
    (item,) = store.listing("m").objects
    with pytest.raises(kind) as caught, store.read(item) as reading:
        list(reading.chunks)
    assert caught.value.reason == reason.format(root=root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_pull_file_that_may_not_be_read_is_named(tmp_path, root, target):
    write(root, {"m/a": b"a"})
    (root / "m" / "a").chmod(0)
    error = await refused(puller(tmp_path), "m", target)
    assert error.reason == f"access to '{root}/m/a' denied (storage key 'k')"
