"""`wml-serving convert`: files for KServe's ModelMesh as ours."""

import click
import yaml

from mesh.wire.convert import convert
from router.cli.failures import Failure
from router.cli.files import file_option, read_documents, refuse_all


@click.command("convert")
@file_option(required=True)
def convert_command(files: tuple[str, ...]) -> None:
    """Converts files for KServe's ModelMesh, and says what has no equal.

    \b
      wml-serving convert -f old/ > new.yaml

    Predictors, ServingRuntimes and InferenceServices of serving.kserve.io become resources of
    wmlserving.ai.ibm.com on standard output; what was left out is on standard error. Exit code 1:
    an object could not be converted.
    """
    documents, problems = read_documents(files)
    refuse_all(problems)
    done = convert(document.content for document in documents)
    if done.objects:
        text = yaml.safe_dump_all(done.objects, sort_keys=False, explicit_start=True)
        click.echo(text, nl=False)
    for note in done.notes:
        click.echo(f"{note.about}: {note.text}", err=True)
    lost = sum(note.is_lost for note in done.notes)
    if lost:
        raise Failure(f"error: {lost} of {len(documents)} objects were not converted")
