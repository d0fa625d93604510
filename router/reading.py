"""What there is, as resources: all of a kind, and then each change.

A reader that is slow misses states in between, never the last one: what changed is a set of keys.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass

from mesh.agent.engine import Node
from mesh.core.errors import ModelNotFound, NoSuchResource
from mesh.core.ids import ModelId, NodeId, PredictorName, RuntimeName
from mesh.core.records import (
    BackingModel,
    CopyRecord,
    NodeRecord,
    Predictor,
    Record,
    RuntimeRecord,
    RuntimeWish,
)
from mesh.core.runtimes import supporting
from mesh.core.status import model_state, predictor_status
from mesh.core.view import View
from mesh.ops.clock import wall_s
from mesh.wire import resources
from mesh.wire.pb import wml_management_pb2 as pb

Key = tuple[str, ...]
Resource = dict[str, object]
# What a runtime shows is counted over all Predictors: a burst of changes is counted once.
COUNT_S = 0.2


@dataclass(frozen=True, slots=True)
class Shelf:
    """One kind: which keys there are, what a key shows (None: nothing), and what a change concerns.

    A key has the parts of the resource's name. A change is shown after `pause_s`, with what else
    has changed by then.
    """

    kind: str
    keys: Callable[[View], Iterable[Key]]
    show: Callable[[View, Key], Resource | None]
    concerned: Callable[[View, type[Record], Key], Iterable[Key]]
    pause_s: float = 0.0


async def read(
    node: Node,
    request: pb.ReadRequest,
    endpoints: resources.Endpoints,
    begun: Callable[[], Awaitable[None]],
) -> AsyncIterator[pb.ReadEvent]:
    """The events of one call. Raises ModelNotFound, NoSuchResource.

    `begun` is called before the first one: of what is followed, nothing is missed from then on.
    """
    shelf = _shelves(endpoints)[request.kind]
    changed = dict.fromkeys(key for key in sorted(shelf.keys(node.view)) if _is_asked(request, key))
    if request.name and not changed and not request.follow:
        raise _missing(shelf.kind, request.name)
    stirred = asyncio.Event()

    def look(kind: type[Record], key: Key) -> None:
        for concerned in shelf.concerned(node.view, kind, key):
            if _is_asked(request, concerned):
                changed[concerned] = None
                stirred.set()

    if request.follow:
        node.view.readers.add(look)
    try:
        await begun()
        while True:
            stirred.clear()
            while changed:
                key = next(iter(changed))
                del changed[key]
                shown = shelf.show(node.view, key)
                if shown is not None or request.follow:
                    text = "" if shown is None else json.dumps(shown)
                    yield pb.ReadEvent(name="/".join(key), json=text)
            if not request.follow:
                return
            await stirred.wait()
            await asyncio.sleep(shelf.pause_s)
    finally:
        node.view.readers.discard(look)


def show_predictor(
    view: View, name: PredictorName, endpoints: resources.Endpoints
) -> Resource | None:
    """The object with its status; None where there is none."""
    predictor = view.predictors.get(name)
    if predictor is None:
        return None
    status = predictor_status(predictor, view, now=wall_s())
    return resources.predictor_object(predictor, status, endpoints)


def _is_asked(request: pb.ReadRequest, key: Key) -> bool:
    return not request.name or request.name in (*key, "/".join(key))


def _missing(kind: str, name: str) -> ModelNotFound | NoSuchResource:
    return ModelNotFound(name) if kind == "predictor" else NoSuchResource(kind, name)


def _shelves(endpoints: resources.Endpoints) -> dict[int, Shelf]:
    def show(view: View, key: Key) -> Resource | None:
        return show_predictor(view, PredictorName(key[0]), endpoints)

    predictors = Shelf(
        "predictor", lambda view: ((name,) for name in view.predictors), show, _predictors_by
    )
    return {
        pb.PREDICTOR: predictors,
        pb.MODEL: Shelf(
            "model", lambda view: ((model,) for model in view.models), _show_model, _models_by
        ),
        pb.NODE: Shelf(
            "node", lambda view: ((node,) for node in view.nodes), _show_node, _nodes_by
        ),
        pb.COPY: Shelf(
            "copy",
            lambda view: ((copy.model, copy.node) for copy in view.every_copy()),
            _show_copy,
            _copies_by,
        ),
        pb.RUNTIME: Shelf(
            "runtime",
            lambda view: ((runtime,) for runtime in view.runtimes),
            _show_runtime,
            _runtimes_by,
            COUNT_S,
        ),
    }


def _show_model(view: View, key: Key) -> Resource | None:
    model = view.models.get(ModelId(key[0]))
    if model is None:
        return None
    state = model_state(model.id, view, now=wall_s())
    return resources.model_resource(
        model, state, view.names(model.id), view.copies(model.id).values()
    )


def _show_node(view: View, key: Key) -> Resource | None:
    node = view.nodes.get(NodeId(key[0]))
    return None if node is None else resources.node_resource(node, len(view.held(node.id)))


def _show_copy(view: View, key: Key) -> Resource | None:
    copy = view.copies(ModelId(key[0])).get(NodeId(key[1]))
    return None if copy is None else resources.copy_resource(copy)


def _show_runtime(view: View, key: Key) -> Resource | None:
    runtime = view.runtimes.get(RuntimeName(key[0]))
    if runtime is None:
        return None
    wish = view.wishes.get(runtime.name)
    uses = (node.newest_use_s for node in view.nodes.values() if node.runtime == runtime.name)
    return resources.runtime_resource(
        runtime,
        wanted_s=0.0 if wish is None else wish.wanted_s,
        last_use_s=max(uses, default=0.0),
        predictors=_predictors_on(runtime, view),
    )


def _predictors_on(runtime: RuntimeRecord, view: View) -> int:
    """The Predictors with a model that may be placed on it."""
    only = {runtime.name: runtime}
    models = [it.id for it in view.models.values() if supporting(it.common_source, only)]
    return len({name for model in models for name in view.names(model)})


def _predictors_by(view: View, kind: type[Record], key: Key) -> Iterable[Key]:
    if kind is Predictor:
        return [key]
    if kind in (BackingModel, CopyRecord):
        return [(name,) for name in view.names(ModelId(key[0]))]
    return []


def _models_by(view: View, kind: type[Record], key: Key) -> Iterable[Key]:
    if kind is Predictor:
        predictor = view.predictors.get(PredictorName(key[0]))
        return [(predictor.active,), (predictor.target,)] if predictor is not None else []
    return [key[:1]] if kind in (BackingModel, CopyRecord) else []


def _nodes_by(view: View, kind: type[Record], key: Key) -> Iterable[Key]:
    if kind is NodeRecord:
        return [key]
    return [key[1:]] if kind is CopyRecord else []


def _copies_by(view: View, kind: type[Record], key: Key) -> Iterable[Key]:
    return [key] if kind is CopyRecord else []


def _runtimes_by(view: View, kind: type[Record], key: Key) -> Iterable[Key]:
    if kind in (RuntimeRecord, RuntimeWish):
        return [key]
    return [] if kind is CopyRecord else [(runtime,) for runtime in view.runtimes]
