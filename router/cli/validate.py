"""`wml-serving validate`: checks files, and asks no server."""

import click

from mesh.wire.documents import InvalidManifest
from mesh.wire.manifests import parse_predictor
from mesh.wire.problems import look_up
from mesh.wire.runtime_manifest import parse_runtime
from router.cli.files import file_option, problems_of, read_documents, refuse_all

CHECKS = {"Predictor": parse_predictor, "ServingRuntime": parse_runtime}


@click.command("validate")
@file_option(required=True)
def validate_command(files: tuple[str, ...]) -> None:
    """Checks Predictor and ServingRuntime files and names everything that is wrong with them.

    \b
      wml-serving validate -f my-predictor.yaml -f deploy/runtimes/
    """
    documents, problems = read_documents(files)
    for document in documents:
        found = list(problems_of(document, _check))
        problems += found
        if not found:
            kind = str(look_up(document.content, "kind")).lower()
            name = look_up(document.content, "metadata", "name")
            click.echo(f"{document.place}: {kind}/{name} is valid")
    refuse_all(problems)


def _check(content: object) -> object:
    check = CHECKS.get(str(look_up(content, "kind")))
    if check is None:
        raise InvalidManifest((f"kind: must be {' or '.join(CHECKS)}",))
    return check(content)
