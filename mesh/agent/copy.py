"""The driver of one copy: carries out what `core.copies` decides, and counts what is in flight.

A copy has at most one task under way: the wait for room, the load, or the unload.
"""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from mesh.agent.calls import UNTOLD, Calls, Gate
from mesh.core import copies
from mesh.core.cache import Entry
from mesh.core.errors import ModelLoadFailed, Unavailable
from mesh.core.ids import ModelId
from mesh.core.records import BackingModel
from mesh.ops.metrics import COPY_MS, Histogram
from mesh.ops.tasks import Tasks
from mesh.runtime.port import Progress


class Purpose(Enum):
    """Why a copy is wanted.

    EXTRA and AGAIN are one more beside others that serve: for use that grew, or in place of one
    that leaves; and for use that comes again and again.
    """

    FILL = "fill"
    USE = "use"
    TARGET = "target"
    EXTRA = "extra"
    AGAIN = "again"

    @property
    def may_evict(self) -> bool:
        """The others take free room only."""
        return self not in (Purpose.FILL, Purpose.AGAIN)

    @property
    def is_first(self) -> bool:
        """Whether it is for the first copy, of which there is to be one."""
        return self not in (Purpose.EXTRA, Purpose.AGAIN)


class Host(Protocol):
    """What a copy needs of its node."""

    tasks: Tasks

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    async def find_room(self, copy: "Copy") -> None:
        """Waits for the runtime, room and a loading slot; `copy.entry` is set then.

        Raises ModelLoadFailed where no room can come, NotWanted where it would have to evict.
        """
        ...

    async def load(self, copy: "Copy") -> int:
        """The size in bytes. Raises ModelLoadFailed, Unavailable."""
        ...

    async def unload(self, model: ModelId) -> None:
        """Raises Unavailable."""
        ...

    def changed(self, copy: "Copy", before: copies.State) -> None:
        """Called after each move, before anything else happens."""
        ...

    def unpinned(self, copy: "Copy") -> None:
        """No request waits for it any more, so that it may be a victim."""
        ...


class NotWanted(Exception):
    """There is no free room for a copy that may not evict others."""


@dataclass(slots=True, eq=False)
class Copy:
    """One model on this node: `address` is where it answers, `pins` how many wait for it.

    `uses` counts the requests that it ever had; `times` how many milliseconds its calls took.
    `last_use_s`: when the model was used elsewhere, in monotonic seconds. One that is handed over,
    in place of a copy on a node that leaves, evicts only what was used long before that.

    `progress` is the runtime's last word about the load that is under way, if there was one.
    `calls` and `gate`, None without a limit, are how requests go to it.
    """

    model: BackingModel
    host: Host
    address: str
    purpose: Purpose
    drain_limit_s: float
    protected: frozenset[ModelId] = frozenset()
    last_use_s: float = math.inf
    is_handed_over: bool = False
    entry: Entry | None = None
    in_flight: int = 0
    pins: int = 0
    uses: int = 0
    times: Histogram = field(default_factory=lambda: Histogram(COPY_MS))
    progress: Progress | None = None
    calls: Calls = UNTOLD
    gate: Gate | None = None
    state: copies.State = field(init=False)
    _task: asyncio.Task[None] | None = field(init=False, default=None)
    _timer: asyncio.TimerHandle | None = field(init=False, default=None)
    _events: deque[copies.Event] = field(init=False, default_factory=deque)
    _is_stepping: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.state, effects = copies.start(now=self.host.now())
        for effect in effects:
            self._carry_out(effect)

    @property
    def hop(self) -> tuple[()]:
        """Nothing is said on the way: the runtime is beside us."""
        return ()

    @property
    def id(self) -> ModelId:
        return self.model.id

    @property
    def is_loaded(self) -> bool:
        return isinstance(self.state, copies.Loaded)

    def enter(self, now: float) -> None:
        """A request begins; `now` is monotonic seconds. It keeps the copy from being unloaded."""
        self.in_flight += 1
        self.uses += 1
        if self.entry is not None:
            self.entry.used_s = now

    def touch(self, now: float) -> None:
        """It is in use, still; `now` is monotonic seconds."""
        if self.entry is not None:
            self.entry.used_s = now

    def took(self, time_ms: float) -> None:
        """A call to the runtime ended after that long."""
        self.times.observe(time_ms)

    def leave(self) -> None:
        """The request ended."""
        self.in_flight -= 1
        if not self.in_flight and isinstance(self.state, copies.Draining):
            self.send(copies.Drained())

    def pin(self) -> None:
        """A request waits for it: it is no victim until it has been answered."""
        self.pins += 1
        if self.entry is not None:
            self.entry.pins += 1

    def unpin(self) -> None:
        self.pins -= 1
        if self.entry is not None:
            self.entry.pins -= 1
            if not self.entry.pins:
                self.host.unpinned(self)

    def hold(self, entry: Entry) -> None:
        """Takes the room that was given to it, with the pins that it has."""
        entry.pins += self.pins
        self.entry = entry

    def send(self, event: copies.Event) -> None:
        """One event; those that carrying it out sends are handled after it, in order."""
        self._events.append(event)
        if self._is_stepping:
            return
        self._is_stepping = True
        try:
            while self._events:
                self._step(self._events.popleft())
        finally:
            self._is_stepping = False

    def _step(self, event: copies.Event) -> None:
        before = self.state
        self.state, effects = copies.step(before, event, now=self.host.now())
        if self.state is not before:
            self.progress = None
            self.host.changed(self, before)
        for effect in effects:
            self._carry_out(effect)

    def _carry_out(self, effect: copies.Effect) -> None:
        match effect:
            case copies.AskRoom():
                self._start(self._find_room(), "room")
            case copies.AskLoad():
                self._start(self._load(), "load")
            case copies.Stop():
                self._stop()
            case copies.AskUnload(delay_s=delay_s):
                self._start(self._unload(delay_s), "unload")
            case copies.AwaitDrain():
                self._await_drain()

    def _start(self, work: Coroutine[None, None, None], what: str) -> None:
        self._task = self.host.tasks.spawn(work, f"{what} {self.id}")

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _find_room(self) -> None:
        try:
            await self.host.find_room(self)
        except NotWanted:
            self.send(copies.Leave())
        except ModelLoadFailed as error:
            failed = copies.LoadFailed(error.cause, False, size_bytes=error.size_bytes)
            self.send(failed)
        else:
            assert self.entry is not None  # noqa: S101 - find_room has set it
            self.send(copies.RoomGiven(self.entry.size_bytes))

    async def _load(self) -> None:
        try:
            size_bytes = await self.host.load(self)
        except ModelLoadFailed as error:
            held, size_bytes = error.holds_memory, error.size_bytes
            self.send(copies.LoadFailed(error.cause, held, size_bytes=size_bytes))
        except Unavailable as error:
            self.send(copies.LoadFailed(error.message, holds_memory=True, is_cut_off=True))
        else:
            self.send(copies.LoadDone(size_bytes))

    async def _unload(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self.host.unload(self.id)
        except Unavailable:
            self.send(copies.UnloadFailed())
        else:
            self.send(copies.UnloadDone())

    def _await_drain(self) -> None:
        if not self.in_flight:
            self.send(copies.Drained())
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.drain_limit_s, self.send, copies.Drained())
