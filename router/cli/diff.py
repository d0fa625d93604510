"""`wml-serving diff`: how files differ from what the server has."""

import difflib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import yaml

from mesh.wire.manifests import parse_predictor
from router.cli.connection import Management, connected, server_option
from router.cli.failures import Failure, NotFound
from router.cli.files import Document, file_option, problems_of, read_documents, refuse_all

DIFFERENT = 1


class Trouble(Failure):
    """It cannot be said whether anything differs."""

    exit_code = 2


@click.command("diff")
@file_option(required=True)
@server_option
def diff_command(files: tuple[str, ...], server: str) -> None:
    """Shows what apply would change: a unified diff of each spec, from the server's to the file's.

    Exit codes: 0 nothing differs, 1 something does, 2 it could not be found out.

    \b
      wml-serving diff -f my-predictor.yaml
      wml-serving diff -f deploy/example-predictors/
    """
    with _as_trouble():
        documents, problems = read_documents(files)
        for document in documents:
            problems += problems_of(document, parse_predictor)
        refuse_all(problems)
        with connected(server) as management:
            lines = [line for document in documents for line in _differences(management, document)]
    for line in lines:
        click.echo(line)
    sys.exit(DIFFERENT if lines else 0)


@contextmanager
def _as_trouble() -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        raise Trouble(failure.message) from failure


def _differences(management: Management, document: Document) -> Iterator[str]:
    spec = parse_predictor(document.content)
    try:
        before = _lines(management.get(spec.name)["spec"])
    except NotFound:
        before = []
    after = _lines(json.loads(spec.canonical))
    name = f"predictor/{spec.name}"
    yield from difflib.unified_diff(
        before, after, f"{name} (server)", f"{name} ({document.place})", lineterm=""
    )


def _lines(spec: object) -> list[str]:
    return yaml.safe_dump({"spec": spec}, allow_unicode=True, width=10_000).splitlines()
