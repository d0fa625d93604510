"""The columns of each kind of resource that `get` shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mesh.wire.resources import size_text
from router.cli import table
from router.cli.description import printable
from router.cli.table import age

# These are never the same twice.
RESTLESS = {
    "node": frozenset({"requestsPerSecond"}),
    "runtime": frozenset({"lastUse", "wanted"}),
}
Cells = tuple[str, ...]
Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """The header of a table and the cells of a resource; both with more of them where wide."""

    header: Callable[..., Cells]
    row: Callable[..., Cells]


def settled(kind: str, resource: Resource) -> Resource:
    """A resource without what changes all the time."""
    restless = RESTLESS.get(kind)
    if restless is None:
        return resource
    status = resource.get("status", {})
    kept = {name: value for name, value in status.items() if name not in restless}
    return {**resource, "status": kept}


def _headed(cells: Cells, more: Cells) -> Callable[..., Cells]:
    def header(*, wide: bool) -> Cells:
        return cells + more if wide else cells

    return header


def _node(resource: Resource, *, now: datetime, wide: bool) -> Cells:
    metadata, status = resource["metadata"], resource["status"]
    cells = (
        metadata["name"],
        status["state"],
        status["runtime"] or "<none>",
        str(status["copies"]),
        size_text(status["usedBytes"]),
        size_text(status["capacityBytes"]),
        f"{status['requestsPerSecond']:.1f}",
        status["address"],
        age(metadata.get("creationTimestamp", ""), now),
    )
    more = (str(status["loading"]), status["zone"], *_lists(status, "labels", "modelTypes"))
    return cells + more if wide else cells


def _model(resource: Resource, *, now: datetime, wide: bool) -> Cells:
    status, spec = resource["status"], resource.get("spec", {})
    path = spec.get("path") or spec.get("storageUri") or spec.get("storage", {}).get("path", "")
    cells = (
        resource["metadata"]["name"],
        spec.get("modelType", {}).get("name", ""),
        status["state"],
        str(status["copies"]),
        str(status["failedCopies"]),
        *_lists(status, "predictors"),
    )
    return (*cells, printable(path)) if wide else cells


def _copy(resource: Resource, *, now: datetime, wide: bool) -> Cells:
    status = resource["status"]
    cells = (
        status["model"],
        status["node"],
        status["state"],
        size_text(status["sizeBytes"]) if status.get("sizeBytes") else "",
        age(status.get("since", ""), now),
    )
    return (*cells, printable(status.get("reason", ""))) if wide else cells


def _runtime(resource: Resource, *, now: datetime, wide: bool) -> Cells:
    status = resource["status"]
    cells = (
        resource["metadata"]["name"],
        status["state"],
        str(status["predictors"]),
        _ago(status["lastUse"], now),
        _ago(status["wanted"], now),
        _ago(status["since"], now),
    )
    types = resource.get("spec", {}).get("supportedModelTypes", [])
    shown = ",".join(":".join((it["name"], *filter(None, [it.get("version")]))) for it in types)
    return (*cells, printable(shown)) if wide else cells


def _ago(moment: str, now: datetime) -> str:
    return age(moment, now) if moment else "<never>"


def _lists(status: Mapping[str, Any], *names: str) -> Cells:
    return tuple(",".join(status[name]) for name in names)


COLUMNS: Mapping[str, Columns] = {
    "predictor": Columns(table.header, table.row),
    "node": Columns(
        _headed(
            ("NAME", "STATE", "RUNTIME", "COPIES", "USED", "CAPACITY", "RPS", "ADDRESS", "AGE"),
            ("LOADING", "ZONE", "LABELS", "TYPES"),
        ),
        _node,
    ),
    "model": Columns(
        _headed(("NAME", "TYPE", "STATE", "COPIES", "FAILED", "PREDICTORS"), ("PATH",)), _model
    ),
    "copy": Columns(_headed(("MODEL", "NODE", "STATE", "SIZE", "FOR"), ("REASON",)), _copy),
    "runtime": Columns(
        _headed(("NAME", "STATE", "PREDICTORS", "USED", "WANTED", "FOR"), ("TYPES",)), _runtime
    ),
}
