"""`wml-serving describe`: all that the server knows of a Predictor, for people to read."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from mesh.ops.clock import wall_s
from router.cli.connection import Management, connected, server_option
from router.cli.description import lines
from router.cli.failures import Failure
from router.cli.names import complete_name, complete_resource, predictor_names


@click.command("describe")
@click.argument("resource", shell_complete=complete_resource)
@click.argument("names", nargs=-1, shell_complete=complete_name)
@server_option
def describe_command(resource: str, names: tuple[str, ...], server: str) -> None:
    """Explains Predictors: spec, models, copies, the last failure and what happened when.

    The history is what the server has seen since it started, the latest 20 things. What happened
    several times is one line, with the count and since when.

    \b
      wml-serving describe predictor example-mnist-predictor
      wml-serving describe predictors
    """
    wanted = predictor_names(resource, names)
    with connected(server) as management:
        failures = _describe(management, wanted or _all(management))
    for failure in failures[:-1]:
        failure.show()
    if failures:
        raise failures[-1]


def _all(management: Management) -> list[str]:
    names = [str(resource["metadata"]["name"]) for resource in management.list()]
    if not names:
        click.echo("No resources found.", err=True)
    return names


def _describe(management: Management, names: Sequence[str]) -> list[Failure]:
    failures = []
    separator = ""
    for name in names:
        try:
            shown = management.describe(name)
        except Failure as failure:
            failures.append(failure)
            continue
        text = "\n".join(lines(shown, now=datetime.fromtimestamp(wall_s(), UTC)))
        click.echo(separator + text)
        separator = "\n\n"
    return failures
