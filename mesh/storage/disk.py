"""Room on the disk for model files: what pulls under way will still write counts as taken."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from mesh.storage.port import DiskFull


@dataclass(slots=True, eq=False)
class Share:
    """What one pull was given; `done_bytes` of it are written."""

    total_bytes: int = 0
    done_bytes: int = 0


class Disk:
    """`most_bytes` is what `root` may hold in all, wherever below; 0: what the disk has.

    Without a root it is the folder that is pulled into. For many threads.
    """

    def __init__(self, root: Path | None = None, most_bytes: int = 0) -> None:
        self._root = root
        self._most_bytes = most_bytes
        self._shares: set[Share] = set()
        self._giving = Lock()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """A pull's share, empty at first, which is given back at the end."""
        share = Share()
        self._shares.add(share)
        try:
            yield share
        finally:
            self._shares.discard(share)

    def give(self, share: Share, needed_bytes: int, folder: Path) -> None:
        """Makes the share so large, to be written to that folder; raises DiskFull."""
        with self._giving:
            coming_bytes = sum(each.total_bytes - each.done_bytes for each in tuple(self._shares))
            free_bytes = shutil.disk_usage(folder).free - coming_bytes
            if self._most_bytes:
                allowed_bytes = self._most_bytes - _held_bytes(self._root or folder) - coming_bytes
                free_bytes = min(free_bytes, allowed_bytes)
            if free_bytes < needed_bytes:
                raise DiskFull(folder, needed_bytes, max(0, free_bytes))
            share.total_bytes = needed_bytes


def _held_bytes(folder: Path) -> int:
    """Of all files below, each once however many names it has. What goes meanwhile is not there."""
    sizes: dict[tuple[int, int], int] = {}
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(top, name))
            except OSError:
                continue
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
