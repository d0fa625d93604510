"""`wml-serving apply`: creates and changes Predictors from files."""

import click

from mesh.wire.manifests import parse_predictor
from router.cli.connection import Resource, connected, server_option
from router.cli.failures import Failure
from router.cli.files import Document, file_option, problems_of, read_documents, refuse_all

SENT_METADATA = ("name", "namespace", "labels", "annotations")


@click.command("apply")
@file_option(required=True)
@server_option
def apply_command(files: tuple[str, ...], server: str) -> None:
    """Creates Predictors, or changes them to what the files say.

    All documents are checked before the first one is applied; each says whether it was created,
    configured (changed) or unchanged. A changed model takes over once it is loaded.

    \b
      wml-serving apply -f my-predictor.yaml
      wml-serving apply -f deploy/example-predictors/
      wml-serving get predictor x -o yaml | sed s/v1/v2/ | wml-serving apply -f -
    """
    documents, problems = read_documents(files)
    for document in documents:
        problems += problems_of(document, parse_predictor)
    refuse_all(problems)
    failures = 0
    with connected(server) as management:
        for document in documents:
            try:
                resource = _sent(document)
                result = management.apply(resource)
                click.echo(f"predictor/{resource['metadata']['name']} {result}")
            except Failure as failure:
                failures += 1
                click.echo(f"{document.place}: {failure.message}", err=True)
    if failures:
        raise SystemExit(1)


def _sent(document: Document) -> Resource:
    """What the owner wrote, without what a server added when it printed it."""
    content = document.content
    metadata = content["metadata"]
    return {
        "apiVersion": content["apiVersion"],
        "kind": content["kind"],
        "metadata": {key: metadata[key] for key in SENT_METADATA if key in metadata},
        "spec": content["spec"],
    }
