"""The Secret as files; on a real API server, see tests/kube/test_storage_secret.py."""

import asyncio
import base64
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.adapters.secret_mirror import SecretMirror, write
from tests.support.kube_memory import MemoryKube
from tests.support.world import eventually


def secret(name: str = "storage-config", **entries: str) -> dict:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in entries.items()}
    meta = {"name": name, "namespace": "ns"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data}


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@asynccontextmanager
async def mirrored(kube: MemoryKube, folder: Path):
    mirror = SecretMirror(kube, "ns", "storage-config", folder)
    running = asyncio.get_running_loop().create_task(mirror.run())
    await mirror.first_sight()
    yield
    running.cancel()
    await asyncio.wait([running])


async def test_folder_follows_the_secret_and_no_other(tmp_path):
    kube = MemoryKube()
    kube.put(secret(a="1"))
    kube.put(secret("another", x="1"))
    async with mirrored(kube, tmp_path):
        assert held(tmp_path) == {"a": "1"}
        kube.put(secret(a="2", b="3"))
        await eventually(lambda: held(tmp_path) == {"a": "2", "b": "3"})
        kube.remove("Secret", "storage-config")
        await eventually(lambda: held(tmp_path) == {})


async def test_secret_that_does_not_exist_yet_is_an_empty_folder(tmp_path):
    kube = MemoryKube()
    (tmp_path / "left").write_text("by an earlier life")
    async with mirrored(kube, tmp_path):
        assert held(tmp_path) == {}
        kube.put(secret(a="1"))
        await eventually(lambda: held(tmp_path) == {"a": "1"})


async def test_outage_leaves_the_last_keys_in_force(tmp_path):
    kube = MemoryKube()
    kube.put(secret(a="1"))
    async with mirrored(kube, tmp_path):
        kube.go()
        kube.put(secret(a="2"))
        await asyncio.sleep(0.1)
        assert held(tmp_path) == {"a": "1"}
        kube.come_back()
        await eventually(lambda: held(tmp_path) == {"a": "2"})


async def test_folder_that_cannot_be_written_is_tried_again(tmp_path):
    kube, folder = MemoryKube(), tmp_path / "keys"
    kube.put(secret(a="1"))
    folder.write_text("a file is in the way")
    mirror = SecretMirror(kube, "ns", "storage-config", folder, retry_s=0.05)
    running = asyncio.get_running_loop().create_task(mirror.run())
    await asyncio.sleep(0.1)
    folder.unlink()
    await mirror.first_sight()
    assert held(folder) == {"a": "1"}
    running.cancel()
    await asyncio.wait([running])


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
