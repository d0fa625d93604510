"""`wml-serving top`: what the mesh is busy with, now, by node and by model."""

import sys
import time
from collections.abc import Sequence

import click

from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.resources import size_text
from router.cli.connection import connected, server_option
from router.cli.description import printable
from router.cli.table import Table
from router.cli.usage import Used, between

INTERVAL_S = 2.0
MODELS = 20
NODE_COLUMNS = ("NODE", "RPS", "P99", "BUSY", "COPIES", "USED", "CAPACITY")
MODEL_COLUMNS = ("MODEL", "RPS", "P99", "BUSY", "COPIES", "MEMORY")
CLEAR = "\x1b[H\x1b[2J"


@click.command("top")
@click.option("-n", "--once", is_flag=True, help="Print it once and return.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.1),
    default=INTERVAL_S,
    show_default=True,
    metavar="SECONDS",
    help="How long it counts requests, each time.",
)
@click.option(
    "--models",
    type=click.IntRange(min=0),
    default=MODELS,
    show_default=True,
    metavar="NUMBER",
    help="How many models are shown, those used most; 0 for all.",
)
@server_option
def top_command(once: bool, interval_s: float, models: int, server: str) -> None:
    """Shows requests a second, their p99 and memory, by node and by model, until Ctrl-C.

    RPS and P99 are of the requests that a node's runtime was sent since the time before, BUSY is
    how many are there now. The p99 is rounded up, by a fifth at most. A model's memory is that of
    all its copies.

    \b
      wml-serving top
      wml-serving top --once --models 0
    """
    with connected(server) as management:
        before = management.usage()
        while True:
            time.sleep(interval_s)
            after = management.usage()
            lines = _lines(before, after, models)
            is_screen = not once and sys.stdout.isatty()
            click.echo((CLEAR if is_screen else "") + "\n".join(lines))
            if once:
                return
            if not is_screen:
                click.echo()
            before = after


def _lines(before: pb.UsageResponse, after: pb.UsageResponse, limit: int) -> list[str]:
    usage = between(before, after)
    shown = usage.models[:limit] if limit else usage.models
    lines = Table().lines([NODE_COLUMNS, *(_node(node) for node in usage.nodes)])
    lines += [f"{name} does not answer" for name in after.unreachable]
    lines += ["", *Table().lines([MODEL_COLUMNS, *(_model(model) for model in shown)])]
    if hidden := len(usage.models) - len(shown):
        lines.append(f"and {hidden} more")
    return lines


def _node(used: Used) -> Sequence[str]:
    return (*_figures(used), size_text(used.used_bytes), size_text(used.capacity_bytes))


def _model(used: Used) -> Sequence[str]:
    return (*_figures(used), size_text(used.used_bytes))


def _figures(used: Used) -> Sequence[str]:
    name = printable(used.name)
    return name, f"{used.rps:.1f}", _time(used.p99_ms), str(used.in_flight), str(used.copies)


def _time(time_ms: float | None) -> str:
    """Milliseconds as a cell, with two or three digits that count."""
    if time_ms is None:
        return "<none>"
    if time_ms >= 1_000.0:
        return f"{time_ms / 1_000.0:.1f} s"
    return f"{time_ms:.0f} ms" if time_ms >= 10.0 else f"{time_ms:.1f} ms"
