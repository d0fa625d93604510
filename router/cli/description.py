"""A Predictor in the style of `kubectl describe`, as lines."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mesh.wire.resources import size_text
from router.cli.table import Table, age, text

INDENT = "  "
NONE = "<none>"


def lines(shown: Mapping[str, Any], *, now: datetime) -> list[str]:
    """What Describe answered, section by section."""
    status = shown.get("status", {})
    return [
        *_fields(_head(shown, now)),
        "Spec:",
        *_indented(_fields(shown["spec"])),
        "Status:",
        *_indented(_fields(_status(status))),
        *_section("Models", [_model(model) for model in shown.get("models", ())]),
        *_section("Copies", [_copy(copy, now) for copy in shown.get("copies", ())]),
        *_failure(status.get("lastFailureInfo"), now),
        *_section("History", [_happening(each, now) for each in shown.get("history", ())]),
    ]


def label(name: str) -> str:
    """A field's name in words, as kubectl has it: `secretKey` is `Secret Key`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return words[:1].upper() + words[1:]


def printable(value: object) -> str:
    """A value on one line, without what could move a terminal's cursor."""
    words = " ".join(text(value).split())
    return "".join(character if character.isprintable() else "?" for character in words)


def _head(shown: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    metadata = shown["metadata"]
    created = metadata.get("creationTimestamp", "")
    return {
        "name": metadata["name"],
        "kind": shown["kind"],
        "API Version": shown["apiVersion"],
        "created": f"{created} ({age(created, now)} ago)",
        "generation": metadata.get("generation", ""),
    }


def _status(status: Mapping[str, Any]) -> dict[str, Any]:
    known = ("available", "transitionStatus", "progress", "grpcEndpoint", "httpEndpoint")
    return {name: status[name] for name in known if status.get(name, "") != ""}


def _fields(values: Mapping[str, Any]) -> list[str]:
    """`Label:  value` under each other, and what is nested indented below its label."""
    flat = (name for name, value in values.items() if not isinstance(value, Mapping))
    width = max((len(label(name)) for name in flat), default=0)
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [f"{label(name)}:", *_indented(_fields(value))]
        else:
            found.append(f"{label(name) + ':':<{width + 3}}{printable(value)}".rstrip())
    return found


def _section(title: str, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """A table below its title; its columns are the keys of the rows."""
    if not rows:
        return [f"{title}:  {NONE}"]
    names = tuple(rows[0])
    cells = [names, tuple("-" * len(name) for name in names), *(tuple(r.values()) for r in rows)]
    return [f"{title}:", *_indented(Table().lines(cells))]


def _model(model: Mapping[str, Any]) -> dict[str, str]:
    spec = model.get("spec", {})
    path = spec.get("path") or spec.get("storageUri") or spec.get("storage", {}).get("path", "")
    return {
        "Role": printable(model["role"]),
        "State": printable(model["state"]),
        "Model": printable(model["id"]),
        "Path": printable(path),
    }


def _copy(copy: Mapping[str, Any], now: datetime) -> dict[str, str]:
    return {
        "Node": printable(copy["node"]),
        "State": printable(copy["state"]),
        "For": age(copy.get("since", ""), now),
        "Size": size_text(copy["sizeBytes"]) if copy.get("sizeBytes") else "",
        "Model": printable(copy["model"]),
    }


def _failure(failure: Mapping[str, Any] | None, now: datetime) -> list[str]:
    if not failure:
        return [f"Last Failure:  {NONE}"]
    time = failure.get("time", "")
    shown = {**failure, "time": f"{time} ({age(time, now)} ago)"} if time else failure
    return ["Last Failure:", *_indented(_fields(shown))]


def _happening(happening: Mapping[str, Any], now: datetime) -> dict[str, str]:
    when = age(happening["time"], now)
    if happening.get("count", 1) > 1:
        when += f" (x{happening['count']} over {age(happening['firstTime'], now)})"
    return {
        "Age": when,
        "What": printable(happening["type"]),
        "Node": printable(happening.get("node", "")),
        "Model": printable(happening.get("model", "")),
        "Message": printable(happening.get("message", "")),
    }


def _indented(block: Sequence[str]) -> list[str]:
    return [f"{INDENT}{line}" for line in block]
