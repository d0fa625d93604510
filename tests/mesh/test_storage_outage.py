"""The end of an outage counts as a change of the storage key."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from mesh.core.ids import StorageKey
from mesh.storage.keys import StorageKeys
from mesh.storage.outage import Outages, is_listening
from mesh.storage.port import KeyNotFound, StoreUnreachable
from mesh.storage.pull import Pulled
from mesh.storage.transfer import PullRequest

ENTRY = {
    "type": "s3",
    "access_key_id": "a",
    "secret_access_key": "b",
    "endpoint_url": "http://127.0.0.1:9",
    "bucket": "c",
}


class Unreachable:
    """A source whose store does not answer, or fails otherwise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def pull(self, request, target, progress=None) -> Pulled:
        raise self.error


def outages(tmp_path: Path, up: asyncio.Event, error: Exception) -> Outages:
    (tmp_path / "k").write_text(json.dumps(ENTRY))

    async def is_up(endpoint_url: str) -> bool:
        assert endpoint_url == ENTRY["endpoint_url"]
        return up.is_set()

    return Outages(Unreachable(error), StorageKeys(tmp_path), is_up)


async def pull(source: Outages, error: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(error):
        await source.pull(PullRequest("k", "model"), tmp_path / "target")


async def test_store_that_is_back_after_a_failed_pull_is_told_once(tmp_path):
    up = asyncio.Event()
    source = outages(tmp_path, up, StoreUnreachable("no answer"))
    changes = source.changes()
    told = asyncio.ensure_future(anext(changes))  # noqa: TID251
    await pull(source, StoreUnreachable, tmp_path)
    done, _ = await asyncio.wait([told], timeout=0.6)
    assert not done
    up.set()
    async with asyncio.timeout(0.5):
        assert await told == "k"
    again = asyncio.ensure_future(anext(changes))  # noqa: TID251
    done, _ = await asyncio.wait([again], timeout=0.6)
    assert not done
    again.cancel()


async def test_probe_reads_the_key_as_the_pull_did(tmp_path):
    up = asyncio.Event()
    source = outages(tmp_path, up, StoreUnreachable("no answer"))
    untyped = {name: value for name, value in ENTRY.items() if name != "type"}
    (tmp_path / "default_s3").write_text(json.dumps(untyped))
    told = asyncio.ensure_future(anext(source.changes()))  # noqa: TID251
    asked = PullRequest(StorageKey(""), "model", parameters={"type": "s3"})
    with pytest.raises(StoreUnreachable):
        await source.pull(asked, tmp_path / "target")
    done, _ = await asyncio.wait([told], timeout=0.6)
    assert not done  # read without the parameters the key is wrong, and counts as back
    up.set()
    async with asyncio.timeout(0.5):
        assert await told == "default_s3"


async def test_key_that_is_a_local_folder_by_now_counts_as_back(tmp_path):
    source = outages(tmp_path, asyncio.Event(), StoreUnreachable("no answer"))
    await pull(source, StoreUnreachable, tmp_path)
    (tmp_path / "k").write_text(json.dumps({"type": "local", "root": "/models"}))
    async with asyncio.timeout(2):
        assert await anext(source.changes()) == "k"


async def test_failure_of_another_kind_is_not_probed(tmp_path):
    up = asyncio.Event()
    up.set()
    source = outages(tmp_path, up, KeyNotFound("k"))
    told = asyncio.ensure_future(anext(source.changes()))  # noqa: TID251
    await pull(source, KeyNotFound, tmp_path)
    done, _ = await asyncio.wait([told], timeout=0.6)
    assert not done
    told.cancel()


async def test_changed_key_is_told_all_the_same(tmp_path):
    source = outages(tmp_path, asyncio.Event(), StoreUnreachable("no answer"))
    told = asyncio.ensure_future(anext(source.changes()))  # noqa: TID251
    await asyncio.sleep(0)
    (tmp_path / "other").write_text(json.dumps(ENTRY))
    async with asyncio.timeout(2):
        assert await told == "other"


async def test_endpoint_listens_only_while_something_is_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert await is_listening(url)
    assert not await is_listening(url)
