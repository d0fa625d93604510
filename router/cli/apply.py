"""`wml-serving apply`: creates and changes Predictors from files."""

import click

from mesh.wire.manifests import parse_predictor
from router.cli.connection import Management, Resource, connected, server_option
from router.cli.failures import Failure
from router.cli.files import Document, file_option, problems_of, read_documents, refuse_all

SENT_METADATA = ("name", "namespace", "labels", "annotations")


@click.command("apply")
@file_option(required=True)
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would happen.")
@server_option
def apply_command(files: tuple[str, ...], is_dry_run: bool, server: str) -> None:
    """Creates Predictors, or changes them to what the files say.

    All documents are checked before the first one is applied; each says whether it was created,
    configured (changed) or unchanged. A changed model takes over once it is loaded. With --dry-run
    the server checks them and changes nothing. Exit codes: 0 done, 1 a document was refused.

    \b
      wml-serving apply -f my-predictor.yaml
      wml-serving apply -f my-predictor.yaml --dry-run
      wml-serving apply -f deploy/example-predictors/
      wml-serving get predictor x -o yaml | sed s/v1/v2/ | wml-serving apply -f -
    """
    documents, problems = read_documents(files)
    for document in documents:
        problems += problems_of(document, parse_predictor)
    refuse_all(problems)
    with connected(server) as management:
        applied = [_is_applied(management, document, is_dry_run) for document in documents]
    if not all(applied):
        raise SystemExit(1)


def _is_applied(management: Management, document: Document, is_dry_run: bool) -> bool:
    resource = sent(document.content)
    try:
        result = management.apply(resource, is_dry_run=is_dry_run)
    except Failure as failure:
        click.echo(f"{document.place}: {failure.message}", err=True)
        return False
    note = " (dry run)" if is_dry_run else ""
    click.echo(f"predictor/{resource['metadata']['name']} {result}{note}")
    return True


def sent(content: Resource) -> Resource:
    """What the owner wrote, without what a server added when it printed it."""
    metadata = content["metadata"]
    return {
        "apiVersion": content["apiVersion"],
        "kind": content["kind"],
        "metadata": {key: metadata[key] for key in SENT_METADATA if key in metadata},
        "spec": content["spec"],
    }
