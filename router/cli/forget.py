"""`wml-serving forget`: has a model that failed tried again at once."""

import click

from router.cli.connection import connected, server_option
from router.cli.failures import Failure
from router.cli.names import complete_any_resource, complete_name, complete_node, resource_names

FORGETFUL = ("predictor", "model")


@click.command("forget")
@click.argument("resource", shell_complete=complete_any_resource)
@click.argument("names", nargs=-1, shell_complete=complete_name)
@click.option(
    "--node",
    default="",
    metavar="NODE",
    shell_complete=complete_node,
    help="Only what failed on this node.",
)
@server_option
def forget_command(resource: str, names: tuple[str, ...], node: str, server: str) -> None:
    """Forgets that models failed to load, so that the next request, or the mesh, tries again.

    A failure is remembered for 15 minutes otherwise. Exit codes: 0 done, or nothing had failed; 1
    there is no such thing, or a node did not answer.

    \b
      wml-serving forget predictor my-predictor
      wml-serving forget model my-predictor-725d74f061 --node node-1a2b3c4d
    """
    kind, wanted = resource_names(resource, names)
    if kind not in FORGETFUL:
        raise click.UsageError(f"forget takes predictor NAME or model ID, not {kind}.")
    if not wanted:
        raise click.UsageError(f"Which {kind}? Give its name.")
    unreachable: list[str] = []
    with connected(server) as management:
        for name in wanted:
            nodes, silent = management.forget(kind, name, node)
            where = f"forgotten on {', '.join(nodes)}" if nodes else "no failure to forget"
            click.echo(f"{kind}/{name} {where}")
            unreachable += silent
    if unreachable:
        raise Failure(f"error: no answer from node {', '.join(dict.fromkeys(unreachable))}")
