"""A store that lost data gets back what the nodes know: Predictors, backing models and runtimes,
create-only.

Nodes announce their own records by themselves. Of the rest each node has a view; those that have
seen most of the store of before (`recall`) write what is missing, one after the other. A key that
exists is never touched, so that what the store came back with stands. Last comes the mark for nodes
that start (`seeded`), without which none is deleted. A Predictor that was deleted after the store's
backup was made rises again with the backup: of that its owner is the judge, who applies and deletes
as ever.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mesh.agent.intake import News
from mesh.agent.recall import Company, Recall
from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import ModelId, PredictorName, Revision, RuntimeName
from mesh.core.view import View
from mesh.ops.tasks import Tasks
from mesh.registry.follow import Follower, Past
from mesh.registry.port import Absent, Change, Op, Put, Registry
from mesh.wire import records

log = logging.getLogger(__name__)

NEVER = Revision(0)
RETRY_S = 0.5
A_COMMIT = 64
OURS = (records.PREDICTORS, records.MODELS, records.RUNTIMES)


class Reseed:
    """What the store lacks, as far as this node can tell.

    `believe` is called with the deletion of what nobody refers to any more, or what a node that had
    seen more did not write; neither is written.
    """

    def __init__(
        self,
        view: View,
        follower: Follower[Any],
        registry: Registry,
        company: Company,
        believe: Callable[[tuple[News, ...]], None],
    ) -> None:
        self._view = view
        self._follower = follower
        self._registry = registry
        self._company = company
        self._believe = believe
        self._missing: dict[str, None] = {}
        self._past: Past | None = None
        self._running: asyncio.Task[None] | None = None
        self._tasks = Tasks()

    def reset(self, missing: Iterable[str], past: Past) -> None:
        """The store lacks these keys all at once, of a `past` where it had them.

        What it was not given back of an earlier loss is missing still.
        """
        keys = {key for key in missing if key.startswith(OURS)} | self._missing.keys()
        self._missing = dict.fromkeys(sorted(keys))
        self._past = self._past or past
        log.warning("store lost data", extra={"keys": len(keys)})
        if self._running is not None:
            self._running.cancel()
        recall = Recall(self._registry, self._company, self._past)
        self._running = self._tasks.spawn(self._run(recall), "reseed")

    async def settled(self) -> None:
        """Returns once nothing is missing that may come back, or be told to be gone."""
        while self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    def seen(self, changes: Iterable[News]) -> None:
        """These came from the store: whatever they say, it is not for us to write them."""
        if self._missing:
            for change in changes:
                self._missing.pop(change.key, None)

    async def close(self) -> None:
        await self._tasks.close()

    async def _run(self, recall: Recall) -> None:
        while True:
            try:
                filled = await recall.turn()
                if filled is None:
                    log.info("store has its data back", extra={"keys": await self._fill()})
                else:
                    await self._follower.caught_up(filled)
                    self._believe_gone(list(self._missing))
                await recall.done()
                break
            except Unavailable:
                await asyncio.sleep(RETRY_S)
        self._past = None

    async def _fill(self) -> int:
        written = 0
        while self._missing:
            keys = list(self._missing)[:A_COMMIT]
            written += await self._write(keys)
            left = [key for key in keys if key in self._missing]  # the others were seen meanwhile
            self._believe_gone([key for key in left if self._value(key) is None])
            for key in left:
                self._missing.pop(key, None)
        return written

    def _believe_gone(self, keys: Iterable[str]) -> None:
        """Those of them that are missing yet will not come back."""
        for key in keys:
            if self._missing.pop(key, key) is None:
                self._believe((Change(key, None, NEVER),))

    async def _write(self, keys: Sequence[str]) -> int:
        """How many were written: all at once, or one by one where somebody else was there first."""
        ops: list[Op] = [Put(key, value) for key in keys if (value := self._value(key))]
        if not ops:
            return 0
        try:
            await self._registry.commit(ops, [Absent(op.key) for op in ops])
        except Conflict:
            return 0 if len(ops) == 1 else sum([await self._write([op.key]) for op in ops])
        return len(ops)

    def _value(self, key: str) -> bytes | None:
        prefix, names = records.key_parts(key)
        if prefix == records.PREDICTORS:
            predictor = self._view.predictors.get(PredictorName(names[0]))
            return None if predictor is None else records.encode(predictor)
        if prefix == records.RUNTIMES:
            runtime = self._view.runtimes.get(RuntimeName(names[0]))
            return None if runtime is None else records.encode(runtime)
        model = self._view.models.get(ModelId(names[0]))
        # One that a Predictor gave up while the store had lost it: no deletion will be seen of it.
        is_left = model is not None and model.auto_delete and not self._view.names(model.id)
        return None if model is None or is_left else records.encode(model)
