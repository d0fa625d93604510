"""`wml-serving delete`: removes Predictors, by name or by the files that made them."""

from collections.abc import Iterable

import click

from mesh.wire.manifests import predictor_name
from router.cli.connection import connected, server_option
from router.cli.failures import Failure
from router.cli.files import file_option, problems_of, read_documents, refuse_all
from router.cli.names import complete_name, complete_resource, predictor_names


@click.command("delete")
@click.argument("resource", required=False, shell_complete=complete_resource)
@click.argument("names", nargs=-1, shell_complete=complete_name)
@file_option(required=False)
@server_option
def delete_command(
    resource: str | None, names: tuple[str, ...], files: tuple[str, ...], server: str
) -> None:
    """Removes Predictors; their models are unloaded once no request uses them.

    \b
      wml-serving delete predictor example-mnist-predictor
      wml-serving delete -f deploy/example-predictors/
    """
    failures = []
    wanted = _wanted(resource, names, files)
    with connected(server) as management:
        for name in wanted:
            try:
                management.delete(name)
                click.echo(f'predictor "{name}" deleted')
            except Failure as failure:
                failures.append(failure.message)
    if failures:
        raise Failure("\n".join(dict.fromkeys(failures)))


def _wanted(resource: str | None, names: tuple[str, ...], files: tuple[str, ...]) -> Iterable[str]:
    if (resource is None) != bool(files):
        raise click.UsageError("Either predictor NAME or -f FILE.")
    if resource is None:
        return _named_in(files)
    wanted = predictor_names(resource, names)
    if not wanted:
        raise click.UsageError("Which predictor? Give its name.")
    return wanted


def _named_in(files: tuple[str, ...]) -> list[str]:
    """The names in files; what else is wrong with a file does not matter here."""
    documents, problems = read_documents(files)
    for document in documents:
        problems += problems_of(document, predictor_name)
    refuse_all(problems)
    return [predictor_name(document.content) for document in documents]
