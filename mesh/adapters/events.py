"""What an adapter tells the nodes that watch it, and how much of it.

A watcher has a mailbox in which a newer event about the same thing takes the older one's place, so
that a slow one costs a bounded amount of memory and never misses a loss or a changed key.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mesh.core.ids import ModelId
from mesh.wire.pb import wml_adapter_pb2 as pb

# Five a second are enough for a person's eyes.
PROGRESS_EVERY_S = 0.2
PULLING = "pulling"
LOADING = "loading"


class Mailbox:
    """The events that one watcher has not taken yet, at most one a subject."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], pb.Event] = {}
        self._bell = asyncio.Event()
        self._is_closed = False

    def put(self, subject: tuple[str, str], event: pb.Event) -> None:
        self._waiting.pop(subject, None)
        self._waiting[subject] = event
        self._bell.set()

    def close(self) -> None:
        self._is_closed = True
        self._bell.set()

    async def take(self) -> pb.Event | None:
        """The oldest event; None once the mailbox is closed and empty."""
        while not self._waiting:
            if self._is_closed:
                return None
            self._bell.clear()
            await self._bell.wait()
        subject = next(iter(self._waiting))
        return self._waiting.pop(subject)


class Events:
    """Where events come in and go out to every watcher; `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._mailboxes: set[Mailbox] = set()
        # When each model's progress was last told, and its stage; gone when its load has ended.
        self._told: dict[ModelId, tuple[float, str]] = {}
        self._is_closed = False

    @contextmanager
    def watching(self) -> Iterator[Mailbox]:
        """A mailbox that gets what happens from now on."""
        mailbox = Mailbox()
        self._mailboxes.add(mailbox)
        if self._is_closed:
            mailbox.close()
        try:
            yield mailbox
        finally:
            self._mailboxes.discard(mailbox)

    def progress(self, model: ModelId, stage: str, done_bytes: int, total_bytes: int) -> None:
        """Told at once where the stage is new or done, else no more often than is useful."""
        now_s = self._clock()
        told_s, told_stage = self._told.get(model, (float("-inf"), ""))
        is_done = 0 < total_bytes <= done_bytes
        if stage == told_stage and not is_done and now_s - told_s < PROGRESS_EVERY_S:
            return
        self._told[model] = (now_s, stage)
        progress = pb.LoadProgress(
            model_id=model, stage=stage, done_bytes=done_bytes, total_bytes=total_bytes
        )
        self._tell(("progress", model), pb.Event(load_progress=progress))

    def load_ended(self, model: ModelId) -> None:
        self._told.pop(model, None)

    def key_changed(self, key: str) -> None:
        event = pb.Event(storage_key_changed=pb.StorageKeyChanged(key=key))
        self._tell(("key", key), event)

    def runtime_lost(self) -> None:
        for mailbox in self._mailboxes:
            self.tell_lost(mailbox)

    def tell_lost(self, mailbox: Mailbox) -> None:
        """To one watcher alone: it came while the model server was away."""
        mailbox.put(("lost", ""), pb.Event(runtime_lost=pb.RuntimeLost()))

    def close(self) -> None:
        """Ends every watch, and those that begin later."""
        self._is_closed = True
        for mailbox in self._mailboxes:
            mailbox.close()

    def _tell(self, subject: tuple[str, str], event: pb.Event) -> None:
        for mailbox in self._mailboxes:
            mailbox.put(subject, event)
