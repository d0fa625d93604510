"""How servers and Predictors are named on the command line, and how the shell completes names.

A Predictor is `predictor x` or `predictor/x`, all of them are `predictors`. Imports next to
nothing: every command needs this.
"""

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

DEFAULT_SERVER = "127.0.0.1:8034"
SERVER_ENV = "WML_SERVING_SERVER"
TLS_ENV = "WML_SERVING_TLS"
INFERENCE_ENV = "WML_SERVING_INFERENCE"
DEFAULT_INFERENCE = "127.0.0.1:8033"
# Who presses Tab does not wait longer.
COMPLETION_LIMIT_S = 2.0
KINDS = ("predictor", "predictors", "predictor.wmlserving.ai.ibm.com")
# What can be looked at, and its plural.
PLURALS = {
    "predictor": "predictors",
    "model": "models",
    "node": "nodes",
    "copy": "copies",
    "runtime": "runtimes",
}


def predictor_names(resource: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that are asked for; none means all. Raises UsageError for another resource."""
    if resource.partition("/")[0].lower() not in KINDS:
        raise _unknown(resource, PLURALS["predictor"])
    return resource_names(resource, names)[1]


def resource_names(resource: str, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The kind and the names that are asked for; none means all. Raises UsageError."""
    written, slash, name = resource.partition("/")
    kind = _kind(written.lower())
    if kind is None:
        *most, last = PLURALS.values()
        raise _unknown(resource, f"{', '.join(most)} and {last}")
    if slash and not name:
        raise click.UsageError(f"{resource!r} has no name.")
    if slash and names:
        raise click.UsageError(f"Either {kind}/NAME or {kind} NAME.")
    return kind, (name,) if slash else tuple(names)


def _kind(word: str) -> str | None:
    if word in KINDS:
        return "predictor"
    return next((kind for kind, plural in PLURALS.items() if word in (kind, plural)), None)


def _unknown(resource: str, known: str) -> click.UsageError:
    kind = resource.partition("/")[0]
    return click.UsageError(f'The server has no resource type "{kind}"; it has {known}.')


def server_of(ctx: click.Context) -> str:
    """The management address that was given before the command, in the environment or not."""
    # While the shell completes, the group's own function is not called, which sets `obj`.
    return str(ctx.obj or ctx.find_root().params.get("server") or DEFAULT_SERVER)


def complete_resource(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """`predictor`, `predictors`, or `predictor/` with the names that there are."""
    return _complete(ctx, incomplete, KINDS[:2])


def complete_any_resource(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """As `complete_resource`, of every kind."""
    return _complete(ctx, incomplete, (*PLURALS, *PLURALS.values()))


def complete_name(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names that the server has of the kind on the line, but those that are there already."""
    given = ctx.params.get(parameter.name or "") or ()
    kind = _kind(str(ctx.params.get("resource") or "predictor").lower()) or "predictor"
    names = (name for name in _names(ctx, kind) if name.startswith(incomplete))
    return [CompletionItem(name) for name in names if name not in given]


def complete_node(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of nodes."""
    names = (name for name in _names(ctx, "node") if name.startswith(incomplete))
    return [CompletionItem(name) for name in names]


def _complete(ctx: click.Context, incomplete: str, words: Sequence[str]) -> list[CompletionItem]:
    written, slash, start = incomplete.partition("/")
    kind = _kind(written)
    if not slash:
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]
    if kind is None or (written not in words and written not in KINDS):
        return []
    names = (name for name in _names(ctx, kind) if name.startswith(start))
    return [CompletionItem(f"{written}/{name}") for name in names]


def _names(ctx: click.Context, kind: str) -> list[str]:
    """None where the server does not answer: a shell that completes has no place for errors."""
    import grpc

    from router.cli.connection import CHANNEL_OPTIONS, Management
    from router.cli.failures import Failure

    server = str(ctx.params.get("server") or server_of(ctx))
    with grpc.insecure_channel(server, options=CHANNEL_OPTIONS) as channel:
        calls = Management(channel, server, limit_s=COMPLETION_LIMIT_S)
        try:
            found = calls.list() if kind == "predictor" else list(calls.read(kind))
        except Failure:
            return []
    return [str(resource["metadata"]["name"]) for resource in found]
