"""Pulls over a store in memory: whole or not at all, whatever goes wrong and whenever."""

import asyncio
import errno
import json
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.core.ids import StorageKey
from mesh.storage.checksums import Checksum
from mesh.storage.disk import Disk
from mesh.storage.keys import StorageKeys
from mesh.storage.port import (
    DiskFailed,
    DiskFull,
    KeyNotFound,
    ObjectNotFound,
    ReadBroken,
    ReadCut,
    StoreUnreachable,
    UnsafeName,
)
from mesh.storage.pull import STOP_S, Puller, remove_leftovers
from mesh.storage.transfer import PullRequest
from tests.support.fake_object_store import FakeObjectStore

ENTRY = {
    "type": "s3",
    "access_key_id": "id",
    "secret_access_key": "secret",
    "endpoint_url": "http://nowhere",
    "bucket": "b",
}
DEADLINE_S = 10
TREE = {"m/a": b"aaaaaaaa", "m/sub/b": b"bb", "m/none": b"", "one.joblib": b"12345", "s": b"{}"}


@pytest.fixture
def keys(tmp_path):
    folder = tmp_path / "config"
    folder.mkdir()
    (folder / "k").write_text(json.dumps(ENTRY))
    return StorageKeys(folder)


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def request(path: str, **more) -> PullRequest:
    return PullRequest(StorageKey("k"), path, **more)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


async def test_pull_single_object_is_a_file_of_its_base_name(keys, models):
    pulled = await Puller(keys, FakeObjectStore(TREE).open).pull(
        request("/one.joblib"), models / "t"
    )
    assert pulled.path == models / "t" / "one.joblib"
    assert (pulled.size_bytes, pulled.files, pulled.schema) == (5, 1, None)
    assert files(models) == {"t/one.joblib": b"12345"}


async def test_pull_prefix_keeps_its_structure_and_its_empty_folders(keys, models):
    pulled = await Puller(keys, FakeObjectStore(TREE).open).pull(request("m"), models / "t")
    assert (pulled.path, pulled.size_bytes, pulled.files) == (models / "t", 10, 3)
    assert files(models) == {"t/a": b"aaaaaaaa", "t/sub/b": b"bb", "t/none": b""}
    assert (models / "t" / "empty").is_dir()


async def test_pull_schema_lies_beside_the_model(keys, models):
    pulled = await Puller(keys, FakeObjectStore(TREE).open).pull(
        request("one.joblib", schema_path="s"), models / "t"
    )
    assert pulled.schema is not None
    assert pulled.schema.read_bytes() == b"{}"
    assert (pulled.schema.parent, pulled.size_bytes) == (pulled.path.parent, 5)


async def test_pull_schema_that_is_a_prefix_is_refused(keys, models):
    with pytest.raises(ObjectNotFound):
        await Puller(keys, FakeObjectStore(TREE).open).pull(
            request("one.joblib", schema_path="m"), models / "t"
        )
    assert files(models) == {}


async def test_pull_schema_where_the_model_has_one_is_refused(keys, models):
    store = FakeObjectStore({"m/_schema.json": b"1", "s": b"2"})
    with pytest.raises(UnsafeName, match="same file"):
        await Puller(keys, store.open).pull(request("m", schema_path="s"), models / "t")


async def test_pull_opens_with_the_bucket_and_parameters_of_the_request(keys, models):
    store = FakeObjectStore(TREE)
    asked = request("s", bucket="mine", parameters={"region": "eu-de"})
    await Puller(keys, store.open).pull(asked, models / "t")
    ((key, account, bucket),) = store.opened
    assert (key, account.region, bucket) == ("k", "eu-de", "mine")


async def test_pull_unknown_key_fails_with_its_name(keys, models):
    with pytest.raises(KeyNotFound, match="Storage secretKey not found: nope"):
        await Puller(keys).pull(PullRequest(StorageKey("nope"), "m"), models / "t")


async def test_pull_progress_grows_to_the_total(keys, models):
    seen = list[tuple[int, int]]()
    await Puller(keys, FakeObjectStore(TREE).open).pull(
        request("m"), models / "t", lambda done, total: seen.append((done, total))
    )
    assert seen[0] == (0, 10)
    assert seen[-1] == (10, 10)
    assert seen == sorted(seen)


async def test_pull_success_replaces_the_target(keys, models):
    (models / "t").mkdir()
    (models / "t" / "old").write_text("old")
    await Puller(keys, FakeObjectStore(TREE).open).pull(request("s"), models / "t")
    assert files(models) == {"t/s": b"{}"}
    assert [path.name for path in models.iterdir()] == ["t"]


def failing(error: Exception):
    """A store that has read all of m/sub/b when m/a fails."""

    def before_read(name: str) -> None:
        if name == "m/a":
            raise error

    return FakeObjectStore(TREE, before_read)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnreachable("gone"), StoreUnreachable),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFull),
        (OSError(errno.EIO, "Input/output error"), DiskFailed),
        (ReadBroken("m/a", "short"), ReadBroken),
    ],
)
async def test_pull_failure_leaves_the_old_target_and_nothing_else(keys, models, error, kind):
    (models / "t").mkdir()
    (models / "t" / "old").write_text("old")
    with pytest.raises(kind):
        await Puller(keys, failing(error).open, pauses_s=()).pull(request("m"), models / "t")
    assert files(models) == {"t/old": b"old"}
    assert [path.name for path in models.iterdir()] == ["t"]


async def test_pull_disk_full_says_so_with_the_bytes(keys, models):
    store = failing(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(DiskFull, match=r"disk full: .*models has no room for \d+ bytes"):
        await Puller(keys, store.open).pull(request("m"), models / "t")


async def test_pull_more_than_the_disk_has_fails_before_the_first_read(keys, models):
    store = FakeObjectStore(TREE, listed_bytes={"s": 10**18})
    with pytest.raises(DiskFull, match="are free"):
        await Puller(keys, store.open).pull(request("s"), models / "t")
    assert store.reads == []
    assert list(models.iterdir()) == []


async def test_pull_beyond_the_bound_fails_before_the_first_read(keys, models):
    pulling, loaded = models / "_pulling", models / "_files"
    for folder in (pulling, loaded):
        folder.mkdir()
    (loaded / "there").write_bytes(b"12345")
    store = FakeObjectStore({"s": b"1234"})
    with pytest.raises(DiskFull, match="has no room for 4 bytes, 3 are free"):
        await Puller(keys, store.open, disk=Disk(models, 8)).pull(request("s"), pulling / "t")
    assert store.reads == []
    await Puller(keys, store.open, disk=Disk(models, 9)).pull(request("s"), pulling / "t")
    assert files(models) == {"_files/there": b"12345", "_pulling/t/s": b"1234"}


async def test_pull_counts_what_others_will_still_write(keys, models):
    is_read, may_go_on = threading.Event(), threading.Event()

    def before_read(name: str) -> None:
        if name == "first":
            is_read.set()
            may_go_on.wait(10)

    store = FakeObjectStore({"first": b"1234", "second": b"1234"}, before_read)
    puller = Puller(keys, store.open, disk=Disk(models, 7))
    async with asyncio.TaskGroup() as group:
        group.create_task(puller.pull(request("first"), models / "a"))
        assert await asyncio.to_thread(is_read.wait, 10)
        try:
            with pytest.raises(DiskFull, match="has no room for 4 bytes, 3 are free"):
                await puller.pull(request("second"), models / "b")
        finally:
            may_go_on.set()
    shutil.rmtree(models / "a")
    await puller.pull(request("second"), models / "b")
    assert files(models) == {"b/second": b"1234"}


async def test_pull_that_fails_gives_its_share_back(keys, models):
    puller = Puller(
        keys, failing(StoreUnreachable("gone")).open, disk=Disk(models, 20), pauses_s=()
    )
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await puller.pull(request("m"), models / "t")


async def test_pull_broken_read_is_tried_again_and_counted_once(keys, models):
    seen = list[int]()
    listed = {"s": 1}
    store = FakeObjectStore(TREE, listed_bytes=listed)
    with pytest.raises(ReadBroken, match="over 1 bytes"):
        await Puller(keys, store.open).pull(
            request("s"), models / "t", lambda done, total: seen.append(done)
        )
    assert store.reads == ["s"] * 3
    assert store.starts == [0, 0, 0]
    assert max(seen) == 0


async def test_pull_read_that_breaks_once_succeeds(keys, models):
    broken = ["s"]

    def before_read(name: str) -> None:
        if name in broken:
            broken.remove(name)
            raise ReadBroken(name, "cut")

    await Puller(keys, FakeObjectStore(TREE, before_read).open).pull(request("s"), models / "t")
    assert files(models) == {"t/s": b"{}"}


async def test_pull_resumed_read_counts_each_byte_once(keys, models):
    seen = list[int]()
    store = FakeObjectStore(TREE, cuts={"one.joblib": [2, 1]})
    pulled = await Puller(keys, store.open, pauses_s=(0, 0)).pull(
        request("one.joblib"), models / "t", lambda done, total: seen.append(done)
    )
    assert pulled.path.read_bytes() == b"12345"
    assert (store.starts, seen) == ([0, 2, 3], [0, 2, 3, 5])


async def test_pull_damaged_read_begins_anew_and_counts_back(keys, models):
    seen = list[int]()
    wrong = {"s": Checksum("CRC32", b"none")}
    store = FakeObjectStore(TREE, checksums=wrong)
    with pytest.raises(ReadBroken, match="its CRC32 is not the store's"):
        await Puller(keys, store.open).pull(
            request("s"), models / "t", lambda done, total: seen.append(done)
        )
    assert store.starts == [0, 0, 0]
    assert seen == [0, 2, 0, 2, 0, 2, 0]


async def test_pull_cut_for_good_is_not_begun_anew(keys, models):
    store = FakeObjectStore(TREE, cuts={"s": [1, 0, 0]})
    with pytest.raises(ReadCut):
        await Puller(keys, store.open, pauses_s=(0, 0)).pull(request("s"), models / "t")
    assert store.starts == [0, 1, 1]


async def test_pull_cancelled_in_the_pause_before_a_resumption_ends_at_once(keys, models):
    store = FakeObjectStore(TREE, cuts={"s": [1]})
    async with asyncio.timeout(STOP_S / 2), asyncio.TaskGroup() as group:
        puller = Puller(keys, store.open, pauses_s=(60,))
        pull = group.create_task(puller.pull(request("s"), models / "t"))
        await asyncio.to_thread(store.wait_for_closed, 1)
        pull.cancel()
    assert pull.cancelled()
    assert store.starts == [0]
    assert list(models.iterdir()) == []


async def test_pull_without_a_key_uses_the_default_one(keys, models, tmp_path):
    for key in ("default", "default_s3"):
        (tmp_path / "config" / key).write_text(json.dumps(ENTRY))
    store = FakeObjectStore(TREE)
    for parameters in ({}, {"type": "s3"}):
        asked = PullRequest(StorageKey(""), "s", parameters=parameters)
        await Puller(keys, store.open).pull(asked, models / "t")
    assert [key for key, _, _ in store.opened] == ["default", "default_s3"]


async def test_pull_fetches_ten_at_once_and_no_more(keys, models):
    together = threading.Barrier(10)

    def before_read(name: str) -> None:
        with suppress(threading.BrokenBarrierError):
            together.wait(DEADLINE_S)

    store = FakeObjectStore({f"m/{number}": b"x" for number in range(20)}, before_read)
    await Puller(keys, store.open).pull(request("m"), models / "t")
    assert not together.broken
    assert store.most_at_once == 10


async def test_pull_cancelled_waits_for_its_threads_and_leaves_nothing(keys, models):
    ten_wait, go = threading.Barrier(11), threading.Event()

    def before_read(name: str) -> None:
        ten_wait.wait(DEADLINE_S)
        go.wait(DEADLINE_S)

    store = FakeObjectStore({f"m/{number}": b"12345678" for number in range(20)}, before_read)
    done = list[int]()
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        puller = Puller(keys, store.open)
        pull = group.create_task(
            puller.pull(request("m"), models / "t", lambda bytes_done, _: done.append(bytes_done))
        )
        await asyncio.to_thread(ten_wait.wait, DEADLINE_S)
        pull.cancel()
        asyncio.get_running_loop().call_later(0.1, go.set)
        await asyncio.wait([pull])
    assert pull.cancelled()
    assert len(store.reads) == 10  # those in line were not begun,
    assert sorted(store.reads) == sorted(store.closed)
    assert done == [0]  # and those under way wrote no further chunk
    assert list(models.iterdir()) == []


async def test_pull_cancelled_with_threads_stuck_ends_within_a_bound(keys, models):
    started, go = threading.Event(), threading.Event()

    def before_read(name: str) -> None:
        started.set()
        go.wait(DEADLINE_S)

    store = FakeObjectStore(TREE, before_read)
    try:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            pull = group.create_task(Puller(keys, store.open).pull(request("m"), models / "t"))
            await asyncio.to_thread(started.wait, DEADLINE_S)
            pull.cancel()
        assert pull.cancelled()
        assert list(models.iterdir()) == []
    finally:
        go.set()


async def test_pull_target_that_cannot_be_written_is_a_storage_error(keys, models):
    (models / "file").write_text("")
    with pytest.raises(DiskFailed):
        await Puller(keys, FakeObjectStore(TREE).open).pull(request("s"), models / "file" / "t")


def test_remove_leftovers_takes_what_a_killed_pull_left_and_no_more(models):
    (models / "t.pulling-0123abcd").mkdir()
    (models / "t.pulling-0123abcd" / "half").write_text("x")
    (models / "t.replaced-0123abcd").write_text("x")
    (models / "t").mkdir()
    remove_leftovers(models)
    assert [path.name for path in models.iterdir()] == ["t"]
