"""Whether all that a mesh knows of itself agrees, once nothing moves any more.

Three things are read and compared: what the runtimes hold, by their own index; what the store says;
and what each node takes to be so.
"""

import asyncio
import base64
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import grpc.aio

from mesh.core.ids import PredictorName, canonical_spec
from mesh.core.records import BackingModel, CopyRecord, CopyState, NodeRecord, Predictor, Record
from mesh.core.status import TransitionStatus
from mesh.wire import records
from tests.support.mesh_stand import MeshNode, MeshStand, eventually

Copies = dict[tuple[str, str], str]
COUNTED = {"loads", "unloads", "infers", "refused", "torn", "without_room"}
# Where a Predictor does not say: one, and a second one where it is used and there is room.
MOST_COPIES = 2


@dataclass(frozen=True)
class Seen:
    """What one node takes to be so, or the store says. Of a Predictor: its generation, its spec and
    whether it is on its way; of a model: the Predictors that have it; of a node and of a copy (by
    model and node): its state. What is told once a second at most, such as rates, is left out."""

    predictors: dict[str, str]
    models: dict[str, str]
    nodes: dict[str, str]
    copies: Copies


@dataclass(frozen=True)
class Picture:
    """Everything at about one moment. Copies: the state by model and node."""

    nodes: dict[str, NodeRecord]
    predictors: dict[PredictorName, Predictor]
    models: dict[str, BackingModel]
    copies: Copies
    claims: tuple[str, ...]
    views: dict[str, Seen]
    held: dict[str, set[str]]
    running: set[str]


async def look(stand: MeshStand) -> Picture:
    """Reads the runtimes, the store and the nodes that are well."""
    found, claims = await asyncio.to_thread(read_store, stand)
    return Picture(
        nodes={r.id: r for r in found if isinstance(r, NodeRecord)},
        predictors={r.name: r for r in found if isinstance(r, Predictor)},
        models={r.id: r for r in found if isinstance(r, BackingModel)},
        copies={(r.model, r.node): r.state for r in found if isinstance(r, CopyRecord)},
        claims=claims,
        views={node.id: await _seen_by(node) for node in stand.well},
        held={node.id: await node.runtime.index() for node in stand.well if node.runtime},
        running={node.id for node in stand.nodes if node.is_running},
    )


def read_store(stand: MeshStand) -> tuple[list[Record], tuple[str, ...]]:
    """The records, and the models that are claimed."""
    root = f"{stand.root_prefix}/"
    answer = json.loads(stand.etcd.ctl("get", "--prefix", root, "-w", "json"))
    found = []
    claims = []
    for pair in answer.get("kvs", ()):
        key = base64.b64decode(pair["key"]).decode().removeprefix(root)
        if key.startswith(records.CLAIMS):
            claims.append(key.removeprefix(records.CLAIMS))
        record = records.decode(key, base64.b64decode(pair.get("value", "")))
        if record is not None:
            found.append(record)
    return found, tuple(claims)


def stored(picture: Picture) -> Seen:
    """What each node should take to be so."""
    users = defaultdict(set)
    for predictor in picture.predictors.values():
        for model in (predictor.active, predictor.target):
            users[str(model)].add(predictor.name)
    return Seen(
        predictors={
            it.name: _standing(it.generation, it.spec, is_at_rest=it.active == it.target)
            for it in picture.predictors.values()
        },
        models={model: ", ".join(sorted(users[model])) for model in picture.models},
        nodes={node: record.state for node, record in picture.nodes.items()},
        copies=picture.copies,
    )


def disagreements(picture: Picture) -> list[str]:
    """What does not fit together, in words; empty where all is well."""
    return [
        *_of_nodes(picture),
        *_of_contents(picture),
        *_of_views(picture),
        *_of_predictors(picture),
        *_of_counts(picture),
    ]


async def until_quiet(stand: MeshStand, deadline_s: float = 30.0) -> Picture:
    """Waits until everything agrees, and still does half a second later."""
    problems: list[str] = []
    pictures: list[Picture] = []

    async def agrees() -> bool:
        for _ in range(2):
            try:
                picture = await look(stand)
            except (grpc.aio.AioRpcError, AssertionError) as error:
                problems[:] = [str(error)]
                return False
            problems[:] = disagreements(picture)
            pictures[:] = [picture]
            if problems:
                return False
            await asyncio.sleep(0.5)
        return True

    await eventually(agrees, lambda: "all agrees:\n" + "\n".join(problems[:40]), deadline_s)
    return pictures[0]


async def counts(stand: MeshStand) -> dict[str, int]:
    """What the runtimes counted, summed up; what they do not count is not there."""
    total: dict[str, int] = {}
    for node in stand.nodes:
        if node.runtime is None:
            continue
        known = await node.runtime.read()
        for what in COUNTED & known.keys():
            total[what] = total.get(what, 0) + sum(known[what].values())
    return total


async def _seen_by(node: MeshNode) -> Seen:
    return Seen(
        predictors={_name(it): _shown(it) for it in await node.read("PREDICTOR")},
        models={
            _name(it): ", ".join(it["status"]["predictors"]) for it in await node.read("MODEL")
        },
        nodes={_name(it): it["status"]["state"] for it in await node.read("NODE")},
        copies={_key(it): it["status"]["state"] for it in await node.read("COPY")},
    )


def _name(found: dict[str, Any]) -> str:
    return str(found["metadata"]["name"])


def _shown(predictor: dict[str, Any]) -> str:
    is_at_rest = predictor["status"]["transitionStatus"] == TransitionStatus.UP_TO_DATE
    generation = predictor["metadata"]["generation"]
    return _standing(generation, canonical_spec(predictor["spec"]), is_at_rest=is_at_rest)


def _standing(generation: int, spec: str, *, is_at_rest: bool) -> str:
    return f"{'at rest' if is_at_rest else 'on its way'}, {generation}: {spec}"


def _key(copy: dict[str, Any]) -> tuple[str, str]:
    return copy["status"]["model"], copy["status"]["node"]


def _of_nodes(picture: Picture) -> Iterator[str]:
    for node in sorted(picture.nodes.keys() - picture.running):
        yield f"store names {node}, which does not run"
    for node in sorted(picture.running - picture.nodes.keys()):
        yield f"store does not name {node}"
    for model in picture.claims:
        yield f"{model} is claimed still"


def _of_contents(picture: Picture) -> Iterator[str]:
    for node, held in picture.held.items():
        said = {model for model, other in picture.copies if other == node}
        said = {model for model in said if picture.copies[model, node] != CopyState.FAILED}
        for model in sorted(held - said):
            yield f"runtime of {node} holds {model}, which the store does not know"
        for model in sorted(said - held):
            yield f"store has {model} on {node}, whose runtime does not hold it"
    for (model, node), state in picture.copies.items():
        if state in (CopyState.LOADING, CopyState.UNLOADING):
            yield f"{model} on {node} is {state}"
        if node not in picture.nodes:
            yield f"store has {model} on {node}, a node that it does not name"


def _of_views(picture: Picture) -> Iterator[str]:
    known = stored(picture)
    for node, view in picture.views.items():
        for kind in fields(Seen):
            said, true = getattr(view, kind.name), getattr(known, kind.name)
            for key in sorted(said.keys() | true.keys()):
                if said.get(key) != true.get(key):
                    yield f"{node} has of {kind.name} {key} {said.get(key)}, not {true.get(key)}"


def _of_predictors(picture: Picture) -> Iterator[str]:
    used = set()
    for predictor in picture.predictors.values():
        used |= {predictor.active, predictor.target}
        if predictor.active != predictor.target:
            yield f"{predictor.name} is on its way to {predictor.target}"
    for model in sorted(used - picture.models.keys()):
        yield f"{model} is used and not there"
    for model in sorted(picture.models.keys() - used):
        yield f"{model} is there and not used"
    for model, node in picture.copies:
        if model not in picture.models:
            yield f"{model} on {node} is a copy of a model that is not there"


def _of_counts(picture: Picture) -> Iterator[str]:
    most = defaultdict(lambda: MOST_COPIES)
    for predictor in picture.predictors.values():
        least = max(MOST_COPIES, predictor.min_copies)
        most[predictor.active] = predictor.max_copies or least
    loaded = Counter(m for (m, _), state in picture.copies.items() if state == CopyState.LOADED)
    for model, count in loaded.items():
        if count > most[model]:
            yield f"{model} has {count} copies, wanted are {most[model]} at most"
