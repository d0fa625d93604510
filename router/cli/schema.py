"""`wml-serving schema`: the JSON Schema of a file, for editors."""

import json

import click

from mesh.wire.schemas import MODELS, schema


@click.command("schema")
@click.argument("kind", type=click.Choice(tuple(MODELS), case_sensitive=False))
def schema_command(kind: str) -> None:
    """Prints the JSON Schema (draft 2020-12) of a Predictor or a ServingRuntime file.

    Editors complete and check a file by it; `validate` says more, and in better words. The schemas
    of this version are in docs/schemas too.

    \b
      wml-serving schema predictor > predictor.schema.json
      # in a file, for editors with a YAML language server:
      # yaml-language-server: $schema=predictor.schema.json
    """
    click.echo(json.dumps(schema(kind), indent=2, ensure_ascii=False))
