"""`wml-serving drain`: has a node leave the mesh without a request being lost."""

import click

from router.cli.connection import Management, connected, server_option
from router.cli.failures import Failure, TimedOut
from router.cli.names import complete_node

LIMIT_S = 300.0


@click.command("drain")
@click.argument("node", shell_complete=complete_node)
@click.option("--wait", "is_waiting", is_flag=True, help="Return once the node has left.")
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
    """Has NODE leave: it takes nothing new, hands its copies over, and goes.

    Any node can be asked; with --wait ask another one than NODE, which would leave with the answer.
    Exit codes: 0 it has begun (with --wait: it has left), 1 there is no such node, it does not
    answer, or it was not in time.

    \b
      wml-serving get nodes
      wml-serving drain node-1a2b3c4d --wait
    """
    name = node.removeprefix("node/")
    with connected(server) as management:
        management.drain(name)
        click.echo(f"node/{name} draining")
        if is_waiting:
            _wait(management, name, limit_s)
            click.echo(f"node/{name} left")


def _wait(management: Management, name: str, limit_s: float) -> None:
    try:
        for _, resource in management.follow("node", name, limit_s=limit_s):
            if resource is None:
                return
    except TimedOut as error:
        raise Failure(f"error: node/{name} has not left within {limit_s:g} s") from error
    raise Failure("The server ended the watch.")
