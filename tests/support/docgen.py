"""Writes the parts of docs that follow from the code: `python -m tests.support.docgen [--check]`.

A part stands in its page between `<!-- generated: name -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from mesh.agent.holdings import Identity
from mesh.controller.config import Config
from mesh.core.placement import FAILURE_MEMORY_S
from mesh.local.process import MAX_LOG_BYTES
from mesh.ops.metrics import DECLARED
from mesh.ops.settings import AdapterSettings
from mesh.storage.s3 import MOST_OBJECTS
from mesh.wire.documents import MAX_BYTES
from mesh.wire.manifests import PredictorManifest
from mesh.wire.policy import PolicyFile
from mesh.wire.schema_texts import TEXTS
from router.cli.main import wml_serving
from router.cli.serve import serve_command
from router.node import Doors
from router.server import ServerLimits
from router.waiting import DEFAULT_WAIT_S, Limits
from tests.support.pages import DOCS, name_of

PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)
MIB = 1024 * 1024
# By the types of JSON Schema.
KINDS = {"string": "string", "integer": "whole number", "object": "map of strings"}
# Fields of a Predictor that a server adds when it prints one: taken, and not looked at.
NOT_SHOWN = {"namespace", "labels", "annotations"}


def fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """The fields that hold a value: path, key in TEXTS; what is of any type is Kubernetes' own."""
    for name, field in model.model_fields.items():
        alias = field.alias or name
        place = f"{path}{alias}"
        inner = _model(field.annotation)
        if inner is not None:
            yield from fields(inner, f"{place}.")
        elif field.annotation is not Any and name not in NOT_SHOWN:
            yield place, f"{model.__name__}.{alias}", field


def predictor_fields() -> str:
    rows = [
        (f"`{path}`", _kind(field), TEXTS[key]) for path, key, field in fields(PredictorManifest)
    ]
    return _table(("field", "type", "meaning"), rows)


def adapter_settings() -> str:
    rows = [
        (f"`{name}`", "required" if default == "required" else f"`{default or ' '}`", text)
        for name, default, text in AdapterSettings.reference()
    ]
    return _table(("variable", "default", "meaning"), rows)


def metrics() -> str:
    rows = [
        (
            f"`{item.name}`",
            item.kind,
            ", ".join(f"`{label}`" for label in item.labels),
            item.meaning,
        )
        for item in DECLARED
    ]
    return _table(("metric", "kind", "labels", "what it counts"), rows)


def policy_fields() -> str:
    rows = [
        (f"`copies.{field.alias}`", f"{field.default:.4g}", field.description or "")
        for field in PolicyFile.model_fields["copies"].annotation.model_fields.values()
    ]
    return _table(("field", "default", "meaning"), rows)


def controller_config() -> str:
    return _table(("key", "default", "meaning"), list(_config_rows(Config)))


def _config_rows(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str]]:
    for field in model.model_fields.values():
        place, default = f"{path}{field.alias}", field.get_default(call_default_factory=True)
        if field.description is None and isinstance(default, BaseModel):
            yield from _config_rows(type(default), f"{place}.")
            continue
        if isinstance(default, BaseModel):
            default = default.model_dump(by_alias=True, exclude_none=True)
        shown = (
            ""
            if default is None
            else f"`{yaml.safe_dump(_plain(default), default_flow_style=True)}`"
        )
        yield f"`{place}`", shown.replace("\n...", "").replace("\n", ""), field.description or ""


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def serve_options() -> str:
    rows = [_option(option) for option in serve_command.params if isinstance(option, click.Option)]
    return _table(("option", "default", "meaning"), rows)


def cli_commands() -> str:
    rows = [
        (
            f"[`{name}`](#{name})" if has_section(name) else f"`{name}`",
            command.get_short_help_str(200),
        )
        for name, command in commands()
    ]
    return _table(("command", "what it does"), rows)


def cli_options() -> str:
    """A section a command, with its usage and its options, as `--help` has them."""
    return "\n".join(_section(name, command) for name, command in commands() if has_section(name))


def commands() -> Iterator[tuple[str, click.Command]]:
    """All commands, in the order of the help."""
    with click.Context(wml_serving) as context:
        for name in wml_serving.list_commands(context):
            command = wml_serving.get_command(context, name)
            assert command is not None
            yield name, command


def has_section(name: str) -> bool:
    """Whether the reference has a command; the options of some are in install.md."""
    return name not in ("quickstart", "serve")


def limits() -> str:
    server, waiting, doors = ServerLimits(), Limits(), Doors()
    patience_s = Identity.__dataclass_fields__["patience_s"].default
    rows = [
        ("a request's message", _mib(server.message_bytes)),
        ("a request's metadata", f"{server.metadata_bytes // 1024} KiB"),
        ("how long a request's body may take to arrive by REST", f"{server.body_s:g} s"),
        ("connections, by gRPC and by REST each", f"{server.connections:,}"),
        ("calls at once on a connection", f"{server.calls_per_connection:,}"),
        ("requests that wait for one Predictor to load", f"{waiting.per_model:,}"),
        ("requests that wait on the node", f"{waiting.per_node:,}"),
        ("how long a request without a deadline waits for a load", f"{DEFAULT_WAIT_S:g} s"),
        ("how long a request waits for a runtime to come up", f"{patience_s:g} s"),
        ("how long a failed load is remembered", f"{FAILURE_MEMORY_S / 60:g} min"),
        ("objects of one model", f"{MOST_OBJECTS:,}"),
        ("a Predictor file", _mib(MAX_BYTES)),
        ("how long requests may take to finish at SIGTERM", f"{doors.grace_s:g} s"),
        ("a log file below `STATE/logs` before it is set aside at a start", _mib(MAX_LOG_BYTES)),
    ]
    return _table(("what", "limit"), rows)


PARTS: dict[str, Callable[[], str]] = {
    "controller-config": controller_config,
    "adapter-settings": adapter_settings,
    "metrics": metrics,
    "cli-commands": cli_commands,
    "cli-options": cli_options,
    "limits": limits,
    "policy": policy_fields,
    "predictor-fields": predictor_fields,
    "serve-options": serve_options,
}


def current(text: str) -> str:
    """A page's text with its generated parts as they should be."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[3]}", text)


def parts_of(page: Path) -> list[str]:
    return [part[2] for part in PART.finditer(page.read_text())]


def stale() -> list[Path]:
    """Pages whose generated parts are not what the code says."""
    return [
        page for page in sorted(DOCS.rglob("*.md")) if current(page.read_text()) != page.read_text()
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _section(name: str, command: click.Command) -> str:
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    options = [
        _option(option)
        for option in command.params
        if isinstance(option, click.Option) and option.name != "help"
    ]
    table = "\n" + _table(("option", "default", "meaning"), options) if options else ""
    return f"### {name}\n\n`wml-serving {name} {usage}`\n{table}"


def _option(option: click.Option) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.multiple:
        names += ", as often as needed"
    choices = getattr(option.type, "choices", ())
    meaning = option.help or " or ".join(f"`{choice}`" for choice in choices)
    if isinstance(option.envvar, str):
        meaning += f" Also the variable `{option.envvar}`."
    if option.required:
        return names, "required", meaning
    is_shown = isinstance(option.default, str | int | float) and option.default not in ("", False)
    return names, f"`{option.default}`" if is_shown else "", meaning


def _model(annotation: Any) -> type[BaseModel] | None:
    kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
    return next((kind for kind in kinds if issubclass(kind, BaseModel)), None)


def _kind(field: FieldInfo) -> str:
    schema = TypeAdapter(field.annotation).json_schema()
    kinds = [option.get("type") for option in schema.get("anyOf", [schema])]
    return next(KINDS[kind] for kind in kinds if kind != "null")


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB"


def main() -> None:
    pages = stale()
    if "--check" in sys.argv[1:]:
        sys.exit("\n".join(f"{name_of(page)} is not current" for page in pages) or None)
    for page in pages:
        page.write_text(current(page.read_text()))
        print(f"{page}: written")


if __name__ == "__main__":
    main()
