"""Drives Predictors to their targets: loads what is to be loaded, and reports what is.

`consider` is called whenever something about a Predictor changed; it decides from the view alone,
so that a call too many does nothing.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from mesh.agent.copy import Purpose
from mesh.agent.predictors import advance
from mesh.core.errors import Unavailable
from mesh.core.ids import ModelId, PredictorName
from mesh.core.placement import Load, Question, decide
from mesh.core.records import CopyState, Predictor
from mesh.core.transition import ModelLoaded
from mesh.core.view import View
from mesh.ops.tasks import Tasks
from mesh.registry.port import Registry

log = logging.getLogger(__name__)

RETRY_S = 0.5


class Loader(Protocol):
    """Who starts a copy on this node, if placement says so."""

    def question(self, model: ModelId) -> Question | None:
        """None where the view does not know the model yet."""
        ...

    def start(
        self, model: ModelId, decision: Load, purpose: Purpose, protected: frozenset[ModelId]
    ) -> None: ...


class Transitions:
    """One per node; what it remembers goes with the models that it is about."""

    def __init__(
        self, view: View, registry: Registry, loader: Loader, now: Callable[[], float]
    ) -> None:
        self._view = view
        self._registry = registry
        self._loader = loader
        self._now = now
        self._tasks = Tasks()
        self._offered: set[ModelId] = set()
        self._reporting: set[tuple[PredictorName, ModelId]] = set()

    def consider(self, name: PredictorName) -> None:
        """Takes the next step of this Predictor's transition, if there is one."""
        predictor = self._view.predictors.get(name)
        if predictor is None:
            return
        if self._is_loaded(predictor.target):
            if predictor.active != predictor.target or not predictor.served:
                self._report(name, predictor.target)
        elif predictor.active != predictor.target:
            self._load(predictor.target, Purpose.TARGET, frozenset({predictor.active}))
        else:
            self._offer(predictor)

    def forget(self, model: ModelId) -> None:
        """The model is gone, or may be offered room once more."""
        self._offered.discard(model)

    async def close(self) -> None:
        await self._tasks.close()

    def _offer(self, predictor: Predictor) -> None:
        """A model that is new here is loaded where there is free room for it, once."""
        if predictor.active not in self._offered and predictor.active in self._view.models:
            self._offered.add(predictor.active)
            self._load(predictor.active, Purpose.FILL, frozenset())

    def _load(self, model: ModelId, purpose: Purpose, protected: frozenset[ModelId]) -> None:
        question = self._loader.question(model)
        if question is None:
            return
        decision = decide(question)
        if isinstance(decision, Load):
            self._loader.start(model, decision, purpose, protected)

    def _is_loaded(self, model: ModelId) -> bool:
        copies = self._view.copies(model).values()
        return any(copy.state is CopyState.LOADED for copy in copies)

    def _report(self, name: PredictorName, model: ModelId) -> None:
        if (name, model) not in self._reporting:
            self._reporting.add((name, model))
            self._tasks.spawn(self._write(name, model), f"transition {name}")

    async def _write(self, name: PredictorName, model: ModelId) -> None:
        """Tells the store, again and again while it is away and the model is Loaded."""
        try:
            while self._is_loaded(model):
                if await self._is_written(name, model):
                    break
                await asyncio.sleep(RETRY_S)
        finally:
            self._reporting.discard((name, model))

    async def _is_written(self, name: PredictorName, model: ModelId) -> bool:
        try:
            await advance(self._registry, name, ModelLoaded(model), self._now)
        except Unavailable as error:
            log.warning("transition not written", extra={"cause": str(error)})
            return False
        return True
