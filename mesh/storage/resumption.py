"""An object's bytes from the first to the last, however often the connection breaks between.

A read that breaks goes on where it stopped, since models are large and networks are not always
good. Checksums are of the whole object, so they are taken here, over all the reads.
"""

from collections.abc import Callable, Generator, Iterator, Sequence

from mesh.storage.checksums import Checksum, Running
from mesh.storage.port import (
    ObjectStore,
    ReadBroken,
    ReadCut,
    Reading,
    StoredObject,
    StoreUnreachable,
)

# A second in all, for a store that restarts or a connection that is dropped. Who waits for longer
# is told, and a store that comes back is noticed (mesh/storage/outage.py).
PAUSES_S = (0.05, 0.1, 0.2, 0.3, 0.35)
# So many bytes since the last resumption, and the next one counts as the first.
PROGRESS_BYTES = 1024 * 1024


class Patience:
    """For one object: how often it is resumed, and what is waited before."""

    def __init__(
        self,
        pauses_s: Sequence[float],
        pause: Callable[[float], None],
        progress_bytes: int = PROGRESS_BYTES,
    ) -> None:
        self._pauses_s = pauses_s
        self._progress_bytes = progress_bytes
        self._pause = pause
        self._spent = 0
        self._from = 0

    def wait(self, at: int) -> bool:
        """Waits before it is read on from the byte `at`; false, at once, if it is no use."""
        if at - self._from >= self._progress_bytes:
            self._spent = 0
        self._from = at
        if self._spent == len(self._pauses_s):
            return False
        self._pause(self._pauses_s[self._spent])
        self._spent += 1
        return True


class _Taken:
    """What has come of an object so far, over all its reads."""

    def __init__(self, item: StoredObject) -> None:
        self.at = 0
        self._item = item
        self._checksum: Checksum | None = None
        self._running: Running | None = None

    @property
    def is_all(self) -> bool:
        return self.at >= self._item.size_bytes

    def take(self, reading: Reading) -> Iterator[bytes]:
        """The next bytes; raises ReadCut if they end before the object does."""
        if self.at == 0 and reading.checksum is not None:
            self._checksum, self._running = reading.checksum, reading.checksum.running()
        for chunk in reading.chunks:
            self.at += len(chunk)
            if self.at > self._item.size_bytes:
                raise ReadBroken(self._item.name, f"it has over {self._item.size_bytes} bytes")
            if self._running is not None:
                self._running.update(chunk)
            yield chunk
        if not self.is_all:
            raise ReadCut(self._item.name, f"it has {self.at} of {self._item.size_bytes} bytes")

    def check(self) -> None:
        """Raises ReadBroken if what came is not what the store has."""
        checksum, running = self._checksum, self._running
        if checksum is not None and running is not None and running.digest() != checksum.digest:
            raise ReadBroken(self._item.name, f"its {checksum.algorithm} is not the store's")


def read_whole(
    store: ObjectStore, item: StoredObject, patience: Patience
) -> Generator[bytes, None, None]:
    """All bytes of a listed object, as many as were listed.

    Raises ReadCut or StoreUnreachable when patience is at its end, ReadBroken if what came is not
    what the store has, which shows with the last byte alone.
    """
    taken = _Taken(item)
    while True:
        try:
            with store.read(item, taken.at) as reading:
                yield from taken.take(reading)
            break
        except (ReadCut, StoreUnreachable):
            if taken.is_all and taken.at:
                break  # only the connection's end was not in order
            if not patience.wait(taken.at):
                raise
    taken.check()
