"""`wml-serving get`: Predictors as a table, as names, or whole."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import click
import yaml

from mesh.ops.clock import wall_s
from router.cli.connection import Management, Resource, connected, server_option
from router.cli.failures import Failure
from router.cli.names import complete_name, complete_resource, predictor_names
from router.cli.table import Table, header, row

OUTPUTS = ("wide", "json", "yaml", "name")
Print = Callable[[Sequence[Resource]], None]


@click.command("get")
@click.argument("resource", shell_complete=complete_resource)
@click.argument("names", nargs=-1, shell_complete=complete_name)
@click.option("-o", "--output", type=click.Choice(OUTPUTS), help="Another form than the table.")
@click.option("-w", "--watch", is_flag=True, help="Then print each change, until Ctrl-C.")
@server_option
def get_command(
    resource: str,
    names: tuple[str, ...],
    output: str | None,
    watch: bool,
    server: str,
) -> None:
    """Shows Predictors.

    \b
      wml-serving get predictors
      wml-serving get predictors example-mnist-predictor example-xgboost-mnist
      wml-serving get predictor example-mnist-predictor -o yaml
      wml-serving get predictors -o wide --watch
    """
    wanted = predictor_names(resource, names)
    if watch and len(wanted) > 1:
        raise click.UsageError("--watch takes one name, or none for all.")
    show = _as_text(output) if output in ("json", "yaml", "name") else _as_table(output == "wide")
    with connected(server) as management:
        _get(management, wanted, show, output, watch)


def _get(
    management: Management, wanted: Sequence[str], show: Print, output: str | None, watch: bool
) -> None:
    found, failures = _found(management, wanted)
    if watch:
        if failures:
            raise failures[0]
        show(found)
        _follow(management, wanted[0] if wanted else "", found, show)
        return
    if not found and not wanted and output not in ("json", "yaml"):
        click.echo("No resources found.", err=True)
    elif output in ("json", "yaml") and len(wanted) != 1:
        show([_as_list(found)])
    elif found:
        show(found)
    for failure in failures[:-1]:
        failure.show()
    if failures:
        raise failures[-1]


def _found(management: Management, wanted: Sequence[str]) -> tuple[list[Resource], list[Failure]]:
    """What is wanted, and what there is no such of."""
    if not wanted:
        return management.list(), []
    found, failures = [], []
    for name in wanted:
        try:
            found.append(management.get(name))
        except Failure as failure:
            failures.append(failure)
    return found, failures


def _follow(management: Management, name: str, shown: Sequence[Resource], show: Print) -> None:
    """Shows what differs from what was shown, for as long as the server is there."""
    known: dict[str, Resource | None] = {item["metadata"]["name"]: item for item in shown}
    for changed, resource in management.watch(name):
        if known.get(changed) == resource:
            continue
        known[changed] = resource
        if resource is None:
            click.echo(f'predictor "{changed}" deleted', err=True)
        else:
            show([resource])
    raise Failure("The server ended the watch.")


def _as_list(resources: Sequence[Resource]) -> Resource:
    return {"apiVersion": "v1", "items": list(resources), "kind": "List", "metadata": {}}


def _as_table(wide: bool) -> Print:
    table = Table()
    heads: Iterator[tuple[str, ...]] = iter([header(wide=wide)])

    def show(resources: Sequence[Resource]) -> None:
        now = datetime.fromtimestamp(wall_s(), UTC)
        rows = [*heads, *(row(resource, now=now, wide=wide) for resource in resources)]
        for line in table.lines(rows):
            click.echo(line)

    return show


def _as_text(output: str | None) -> Print:
    separators = iter([""])

    def show(resources: Sequence[Resource]) -> None:
        for resource in resources:
            if output == "name":
                click.echo(f"predictor/{resource['metadata']['name']}")
            elif output == "json":
                click.echo(json.dumps(resource, indent=4, sort_keys=True, ensure_ascii=False))
            else:
                click.echo(next(separators, "---\n") + _yaml(resource), nl=False)

    return show


def _yaml(resource: Resource) -> str:
    return yaml.safe_dump(resource, sort_keys=True, allow_unicode=True, width=10_000)
