"""Loads that are asked for by a model's id: administration may want what no request names.

A load goes on when who asked for it leaves. There is one of them a model, and it ends by itself.
"""

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from mesh.agent.copy import Purpose
from mesh.agent.engine import Node
from mesh.agent.errands import Errand
from mesh.agent.resolve import Hold, want
from mesh.core.errors import MeshError
from mesh.core.ids import ModelId
from mesh.core.placement import Load, decide
from mesh.core.records import Record
from mesh.core.status import ModelState, model_state
from mesh.ops.clock import wall_s
from mesh.ops.tasks import Tasks

LIMIT_S = 240.0
# What keeps a node from being asked may pass without a change that could be seen.
LOOK_AGAIN_S = 0.5


async def until(
    node: Node, about: Collection[str], condition: Callable[[], bool], limit_s: float
) -> bool:
    """Whether it came to hold in time. `about`: the models and Predictors that it depends on."""
    stirred = asyncio.Event()

    def look(_kind: type[Record], key: tuple[str, ...]) -> None:
        if key[0] in about:
            stirred.set()

    node.view.readers.add(look)
    try:
        async with asyncio.timeout(limit_s):
            while not condition():
                stirred.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await stirred.wait()
    except TimeoutError:
        return False
    finally:
        node.view.readers.discard(look)
    return True


class Loads:
    """Of one node, which places them; they may run on another one."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks = Tasks()
        self._under_way: dict[ModelId, asyncio.Task[None]] = {}

    def begin(self, model: ModelId, *, used_s: float = 0.0) -> asyncio.Task[None]:
        """Has the model loaded, if it is not; the task ends when that has ended, one way or other.

        `used_s`: when it was used last, in seconds since the epoch, 0 for now. Where that is longer
        ago than the oldest use on every node, nothing is unloaded to make room for it.
        """
        task = self._under_way.get(model)
        if task is None:
            run = self._fill(model) if self._is_old(used_s) else self._use(model)
            task = self._under_way[model] = self._tasks.spawn(run, f"load {model}")
            task.add_done_callback(lambda _: self._under_way.pop(model, None))
        return task

    async def close(self) -> None:
        await self._tasks.close()

    def _is_old(self, used_s: float) -> bool:
        uses = [node.oldest_use_s for node in self._node.view.nodes.values()]
        return 0 < used_s < min((use_s for use_s in uses if use_s), default=0.0)

    async def _use(self, model: ModelId) -> None:
        """As a request would that waits for it."""
        held: Hold | None = None
        try:
            async with asyncio.timeout(LIMIT_S):
                while not self._is_over(model):
                    wanted = want(model, self._node)
                    if wanted is not held:
                        held = _swap(held, wanted)
                    await self._stir(model, held)
        except (MeshError, TimeoutError):
            pass  # the model's state tells
        finally:
            _swap(held, None)

    async def _fill(self, model: ModelId) -> None:
        """Into free room, if there is any."""
        question = self._node.question(model, fill=True)
        decision = None if question is None else decide(question)
        if isinstance(decision, Load):
            held = self._node.load(model, decision.node, Purpose.FILL)
            if isinstance(held, Errand):
                await held.done.wait()
            await until(self._node, (model,), lambda: not self._is_loading(model), LIMIT_S)

    async def _stir(self, model: ModelId, held: Hold | None) -> None:
        """Returns when something may have changed."""
        before = self._state(model), held is not None and _is_over(held)

        def has_changed() -> bool:
            return before != (self._state(model), held is not None and _is_over(held))

        await until(self._node, (model,), has_changed, LOOK_AGAIN_S)

    def _state(self, model: ModelId) -> ModelState:
        return model_state(model, self._node.view, now=wall_s())

    def _is_loading(self, model: ModelId) -> bool:
        return self._state(model) is ModelState.LOADING

    def _is_over(self, model: ModelId) -> bool:
        is_there = model in self._node.view.models
        return not is_there or self._state(model) in (ModelState.LOADED, ModelState.FAILED)


def _is_over(held: Hold) -> bool:
    return isinstance(held, Errand) and held.is_over


def _swap(held: Hold | None, wanted: Hold | None) -> Hold | None:
    """Holds on to the one before it lets go of the other."""
    if wanted is not None:
        wanted.pin()
    if held is not None:
        held.unpin()
    return wanted
