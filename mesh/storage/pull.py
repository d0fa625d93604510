"""Pulls a model's files to the local disk: whole and at once, or not at all.

The files come to a folder beside the target and are renamed to it when all of them are right, so
that nobody ever sees half a model. The blocking work is a Transfer's, in threads of the pull's own;
here is what the event loop has to do with it.
"""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mesh.storage.accounts import Account
from mesh.storage.disk import Disk, Share
from mesh.storage.keys import StorageKeys, key_or_default
from mesh.storage.port import ObjectStore
from mesh.storage.resumption import PAUSES_S
from mesh.storage.stores import Stores
from mesh.storage.transfer import PullRequest, Staged, Transfer, disk_errors

PARALLEL = 10
# How long a cancelled pull waits for its threads, which may be stuck in a read. Those that are
# still there then find their files gone, and end at their next chunk or read timeout.
STOP_S = 2.0
PULLING = ".pulling-"
REPLACED = ".replaced-"

OpenStore = Callable[[str, Account, str], ObjectStore]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Pulled:
    """`path` is the model's file, or the folder that holds its files."""

    path: Path
    size_bytes: int
    files: int
    schema: Path | None


class Puller:
    """Pulls with the keys of one storage-config. Any number of pulls may run at a time.

    `open_store` makes a store from a key's name, its account and a bucket (empty: the account's);
    without it, keys of type `local` may have their root in `local_roots`. `disk` is where the
    targets are.
    """

    def __init__(
        self,
        keys: StorageKeys,
        open_store: OpenStore | None = None,
        *,
        disk: Disk | None = None,
        local_roots: Sequence[Path] = (),
        parallel: int = PARALLEL,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._keys = keys
        self._open_store = open_store or Stores(local_roots).open
        self._disk = disk or Disk()
        self._parallel = parallel
        self._pauses_s = pauses_s

    async def pull(
        self, request: PullRequest, target: Path, progress: Progress | None = None
    ) -> Pulled:
        """Makes `target` a folder with the files; one that is there is replaced, on success only.

        `progress` is called on this loop with the bytes done and the bytes in all. Raises a
        StorageError. A cancellation leaves nothing behind; it waits for the threads, for a bound.
        """
        with self._disk.share() as share:
            return await self._pull(request, target, share, _reporter(progress))

    async def _pull(
        self, request: PullRequest, target: Path, share: Share, report: Progress
    ) -> Pulled:
        staging = _beside(target, PULLING)
        transfer = Transfer(request, staging, self._disk, share, report, self._pauses_s)
        # One thread more than downloads: it lists, and waits for them.
        workers = ThreadPoolExecutor(self._parallel + 1, thread_name_prefix="pull")
        try:
            loop = asyncio.get_running_loop()
            work = loop.run_in_executor(
                workers, lambda: transfer.run(lambda: self._opened(request), workers)
            )
            staged = await _stoppable(work, transfer, staging)
        finally:
            workers.shutdown(wait=False)
        # No await from here to the end of the renames: a cancellation comes before or after.
        with disk_errors(target.parent, lambda: 0):
            old = _rename(staging, target)
        if old is not None:
            await asyncio.to_thread(_remove, old)
        return _pulled(staged, target)

    def _opened(self, request: PullRequest) -> ObjectStore:
        key = key_or_default(request.storage_key, request.parameters)
        account = self._keys.get(key, request.parameters)
        return self._open_store(key, account, request.bucket)


def remove_leftovers(folder: Path) -> None:
    """Removes what pulls into `folder` left when their process was killed. Blocking."""
    for mark in (PULLING, REPLACED):
        for path in folder.glob(f"*{mark}*"):
            _remove(path)


async def _stoppable(work: asyncio.Future[Staged], transfer: Transfer, staging: Path) -> Staged:
    """The outcome of `work`; if cancelled, stops it and sees to it that nothing stays."""
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        transfer.stop()
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        _, stuck = await asyncio.wait([work], timeout=STOP_S)
        if stuck or work.exception() is None:
            work.cancel()  # its thread goes on, but nobody listens: the loop may close
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
        raise


def _reporter(progress: Progress | None) -> Progress:
    """`progress` as threads may call it; calls keep their order and come before the outcome."""
    if progress is None:
        return lambda done, total: None
    loop = asyncio.get_running_loop()

    def report(done: int, total: int) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has gone: nobody listens any more
            loop.call_soon_threadsafe(progress, done, total)

    return report


def _rename(staging: Path, target: Path) -> Path | None:
    """Puts `staging` in the place of `target`; what was there comes back under another name."""
    old = None
    try:
        if target.exists() or target.is_symlink():
            old = target.rename(_beside(target, REPLACED))
        staging.rename(target)
    except OSError:
        if old is not None:
            old.rename(target)
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return old


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(target: Path, mark: str) -> Path:
    return target.with_name(f"{target.name}{mark}{secrets.token_hex(4)}")


def _pulled(staged: Staged, target: Path) -> Pulled:
    schema = None if staged.schema is None else target / staged.schema
    return Pulled(target / staged.model, staged.size_bytes, staged.files, schema)
