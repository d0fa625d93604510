"""`wml-serving get`: Predictors and what is behind them as a table, as names, or whole."""

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import click
import yaml

from mesh.ops.clock import wall_s
from router.cli.columns import COLUMNS, settled
from router.cli.connection import Management, Resource, connected, server_option
from router.cli.failures import Failure
from router.cli.names import complete_any_resource, complete_name, resource_names
from router.cli.table import Table

OUTPUTS = ("wide", "json", "yaml", "name")
Print = Callable[[Sequence[Resource]], None]


@click.command("get")
@click.argument("resource", shell_complete=complete_any_resource)
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
    """Shows predictors, nodes, models, copies or runtimes.

    A copy is a model on a node; the name of either shows all copies of it. With --watch
    what only has other figures of use is not printed again.

    \b
      wml-serving get predictors
      wml-serving get predictors example-mnist-predictor example-xgboost-mnist
      wml-serving get predictor example-mnist-predictor -o yaml
      wml-serving get predictors -o wide --watch
      wml-serving get nodes
      wml-serving get copies NODE
      wml-serving get runtimes
    """
    kind, wanted = resource_names(resource, names)
    if watch and len(wanted) > 1:
        raise click.UsageError("--watch takes one name, or none for all.")
    if output in ("json", "yaml", "name"):
        show = _as_text(kind, output)
    else:
        show = _as_table(kind, output == "wide")
    with connected(server) as management:
        found, failures = _found(management, kind, wanted)
        if watch:
            if failures:
                raise failures[0]
            show(found)
            _follow(management, kind, wanted[0] if wanted else "", found, show)
            return
    _show(found, wanted, show, output)
    for failure in failures[:-1]:
        failure.show()
    if failures:
        raise failures[-1]


def _show(
    found: Sequence[Resource], wanted: Sequence[str], show: Print, output: str | None
) -> None:
    is_whole = output in ("json", "yaml")
    if is_whole and (len(wanted) != 1 or len(found) > 1):
        show([_as_list(found)])
    elif found:
        show(found)
    elif not wanted:
        click.echo("No resources found.", err=True)


def _found(
    management: Management, kind: str, wanted: Sequence[str]
) -> tuple[list[Resource], list[Failure]]:
    """What is wanted, and what there is no such of."""
    is_predictor = kind == "predictor"
    if not wanted:
        return management.list() if is_predictor else list(management.read(kind)), []
    found: list[Resource] = []
    failures = []
    for name in wanted:
        try:
            found += [management.get(name)] if is_predictor else management.read(kind, name)
        except Failure as failure:
            failures.append(failure)
    return found, failures


def _follow(
    management: Management, kind: str, name: str, shown: Sequence[Resource], show: Print
) -> None:
    """Shows what differs from what was shown, for as long as the server is there."""
    known: dict[str, object] = {item["metadata"]["name"]: settled(kind, item) for item in shown}
    is_predictor = kind == "predictor"
    events = management.watch(name) if is_predictor else management.follow(kind, name)
    for changed, resource in events:
        seen = None if resource is None else settled(kind, resource)
        if known.get(changed) == seen:
            continue
        known[changed] = seen
        if resource is None:
            click.echo(f'{kind} "{changed}" {"deleted" if is_predictor else "gone"}', err=True)
        else:
            show([resource])
    raise Failure("The server ended the watch.")


def _as_list(resources: Sequence[Resource]) -> Resource:
    return {"apiVersion": "v1", "items": list(resources), "kind": "List", "metadata": {}}


def _as_table(kind: str, wide: bool) -> Print:
    table = Table()
    columns = COLUMNS[kind]
    heads: Iterator[tuple[str, ...]] = iter([columns.header(wide=wide)])

    def show(resources: Sequence[Resource]) -> None:
        now = datetime.fromtimestamp(wall_s(), UTC)
        rows = [*heads, *(columns.row(resource, now=now, wide=wide) for resource in resources)]
        for line in table.lines(rows):
            click.echo(line)

    return show


def _as_text(kind: str, output: str | None) -> Print:
    separators = iter([""])

    def show(resources: Sequence[Resource]) -> None:
        for resource in resources:
            if output == "name":
                click.echo(f"{kind}/{resource['metadata']['name']}")
            elif output == "json":
                click.echo(json.dumps(resource, indent=4, sort_keys=True, ensure_ascii=False))
            else:
                click.echo(next(separators, "---\n") + _yaml(resource), nl=False)

    return show


def _yaml(resource: Resource) -> str:
    return yaml.safe_dump(resource, sort_keys=True, allow_unicode=True, width=10_000)
