"""The local object store: its process, its data and its end."""

import asyncio
import os
import re
import select
import signal
import sys
import textwrap
from pathlib import Path

import pytest

from mesh.local.object_store import SOCKETS, ObjectStore, StoreDidNotStart
from mesh.storage.accounts import S3Account

pytest_plugins = ["tests.support.s3"]

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30


def has_ended(pid: int, within_s: float = 0) -> bool:
    """Whether a process has ended, or does so in time; it need not be our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


async def test_store_stopped_and_started_keeps_port_and_data(tmp_path):
    (tmp_path / "file").write_bytes(b"from a file")
    store = ObjectStore(tmp_path / "s3", access_key_id="me", secret_access_key="mine")
    async with store:
        await store.put("models", "a/b", tmp_path / "file")
        await store.put("models", "c", b"bytes")
        port, pid = store.port, store.pid
    assert pid is not None
    assert has_ended(pid)
    assert store.pid is None
    again = ObjectStore(tmp_path / "s3", port=port, access_key_id="me", secret_access_key="mine")
    async with again:
        assert again.endpoint_url == f"http://127.0.0.1:{port}"
        read = again.client().get_object(Bucket="models", Key="a/b")["Body"].read()
        assert read == b"from a file"


async def test_store_entry_is_a_valid_storage_key(tmp_path):
    store = ObjectStore(tmp_path, port=12_345)
    account = S3Account.model_validate(store.storage_entry("b"))
    assert (account.bucket_or(""), account.endpoint_url) == ("b", "http://127.0.0.1:12345")


async def test_store_on_a_taken_port_does_not_start_and_says_why(s3_server, tmp_path):
    store = ObjectStore(tmp_path, port=s3_server.store.port)
    with pytest.raises(StoreDidNotStart, match="port"):
        await store.start()
    assert store.pid is None


async def test_store_stopped_or_killed_leaves_no_socket_and_takes_no_other(tmp_path, s3_server):
    others = [path for path in sockets(s3_server.store) if path.exists()]
    assert others != []
    store = ObjectStore(tmp_path / "s3")
    async with store:
        assert store.pid is not None
        own = sockets(store)
        os.kill(store.pid, signal.SIGKILL)
        assert await asyncio.to_thread(has_ended, store.pid, DEADLINE_S)
        assert any(path.exists() for path in own)
    assert [path for path in own if path.exists()] == []
    taken = ObjectStore(tmp_path / "taken", port=s3_server.store.port)
    with pytest.raises(StoreDidNotStart):
        await taken.start()
    assert [path for path in others if not path.exists()] == []


def sockets(store: ObjectStore) -> list[Path]:
    """Where those of its ports are, once they are there, by its process's arguments."""
    arguments = Path(f"/proc/{store.pid}/cmdline").read_text()
    listening = re.findall(r"-([a-z0-9]+)\.port=(\d+)", arguments)
    return [
        SOCKETS / f"seaweedfs-{name}-grpc-{int(port) + 10_000}.sock" for name, port in listening
    ]


async def test_store_stop_without_start_does_nothing(tmp_path):
    await ObjectStore(tmp_path).stop()


def test_store_keeps_its_secret_out_of_the_arguments(s3_server):
    arguments = Path(f"/proc/{s3_server.store.pid}/cmdline").read_text()
    assert "weed" in arguments
    assert s3_server.store.secret_access_key not in arguments


async def test_store_stopped_ends_in_order_and_not_by_force(tmp_path):
    store = ObjectStore(tmp_path)
    async with store, asyncio.timeout(DEADLINE_S):
        await store.put("models", "m", b"x")
    assert "Shut down successfully" in store.log_file.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
async def test_store_ends_with_its_parent_however_that_ends(tmp_path):
    script = textwrap.dedent(f"""
        import asyncio, pathlib, sys
        from mesh.local.object_store import ObjectStore
        async def main():
            async with ObjectStore(pathlib.Path({os.fspath(tmp_path)!r})) as store:
                print(store.pid, flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        pid = int(await parent.stdout.readline())
        assert not has_ended(pid)
        parent.send_signal(signal.SIGKILL)
        await parent.wait()
    assert await asyncio.to_thread(has_ended, pid, DEADLINE_S)
