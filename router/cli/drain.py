"""`wml-serving drain`: has a node hand over what it does, so that its process can be ended."""

from collections.abc import Sequence

import click

from router.cli.connection import Management, connected, server_option
from router.cli.failures import Failure, TimedOut
from router.cli.names import complete_node

LIMIT_S = 300.0
NAMED = 5


@click.command("drain")
@click.argument("node", shell_complete=complete_node)
@click.option("--wait", "is_waiting", is_flag=True, help="Return once it has handed over.")
@click.option(
    "--timeout",
    "limit_s",
    type=click.FloatRange(min=0, min_open=True),
    default=LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long --wait waits.",
)
@server_option
def drain_command(node: str, is_waiting: bool, limit_s: float, server: str) -> None:
    """Has NODE take nothing new, and hand its models over to other nodes.

    Its process goes on, and serves what only it has, until somebody ends it: that is for whoever
    started it. There is no way back but a restart. Any node can be asked, NODE as well, and again.
    What --wait finds on no other node, for want of room or of use, is named on standard error.
    Exit codes: 0 it has begun (with --wait: it has handed over), 1 there is no such node, it does
    not answer, or it was not in time.

    \b
      wml-serving get nodes
      wml-serving drain node-1a2b3c4d --wait
    """
    name = node.removeprefix("node/")
    with connected(server) as management:
        management.drain(name)
        click.echo(f"node/{name} draining")
        if is_waiting:
            kept = _handed_over(management, name, limit_s)
            click.echo(f"node/{name} handed over")
            if kept:
                click.echo(f"loaded nowhere else: {_named(kept)}", err=True)


def _handed_over(management: Management, name: str, limit_s: float) -> Sequence[str]:
    try:
        kept = management.drained(name, limit_s)
    except TimedOut as error:
        raise Failure(f"error: node/{name} has not handed over within {limit_s:g} s") from error
    if kept is None:
        raise Failure(f"error: node/{name} does not say when it has handed over")
    return kept


def _named(models: Sequence[str]) -> str:
    further = len(models) - NAMED
    return ", ".join(models[:NAMED]) + (f" and {further} more" if further > 0 else "")
