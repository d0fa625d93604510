"""A real object store for tests: one process a session, reached from any loop or none.

Use it with `pytest_plugins = ["tests.support.s3"]`, or import `running_s3` where no fixture fits.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mesh.local.object_store import ObjectStore
from tests.support.gated_proxy import GatedProxy

DEADLINE_S = 60.0


class S3Server:
    """A running ObjectStore behind plain calls; its own loop runs in a thread of its own."""

    def __init__(self, store: ObjectStore, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.store = store
        self._run = run
        self._numbers = itertools.count(1)

    def bucket(self) -> str:
        """A new empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        self._run(self.store.make_bucket(name))
        return name

    def put(self, bucket: str, key: str, content: Path | bytes) -> None:
        self._run(self.store.put(bucket, key, content))

    def make_public(self, bucket: str) -> None:
        """Lets anybody read the bucket, without an account."""
        allowed = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.store.client().put_bucket_policy(Bucket=bucket, Policy=policy)

    def entry(self, bucket: str, /, **changed: str | None) -> dict[str, str]:
        """The storage-config entry of a bucket, with some fields changed; None leaves one out."""
        fields = {**self.store.storage_entry(bucket), **changed}
        return {name: value for name, value in fields.items() if value is not None}

    def write_key(self, folder: Path, key: str, bucket: str, /, **changed: str | None) -> None:
        """Writes an entry into a storage-config folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text(json.dumps(self.entry(bucket, **changed)))

    def kill(self) -> None:
        """kill -9 of the process."""
        assert self.store.pid is not None
        os.kill(self.store.pid, signal.SIGKILL)

    def restart(self) -> None:
        """Starts it again after a kill, on the port that it was told to have."""
        self._run(self.store.stop())
        self._run(self.store.start())

    def proxy(self) -> GatedProxy:
        """A proxy before this store; use it as a context manager, and its endpoint_url."""
        return GatedProxy(self.store.endpoint_url)


@contextlib.contextmanager
def running_s3(folder: Path, *, port: int = 0) -> Iterator[S3Server]:
    """Starts a store with its data in `folder`, and stops it at the end."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="s3-server")
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(DEADLINE_S)

    store = ObjectStore(folder, port=port)
    try:
        run(store.start())
        yield S3Server(store, run)
    finally:
        run(store.stop())
        run(loop.shutdown_default_executor())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One store for the whole session; take a bucket of your own from it."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server
