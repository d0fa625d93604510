"""How servers and Predictors are named on the command line.

A Predictor is `predictor x` or `predictor/x`, all of them are `predictors`. Imports next to
nothing: every command needs this.
"""

from collections.abc import Sequence

import click

DEFAULT_SERVER = "127.0.0.1:8034"
SERVER_ENV = "WML_SERVING_SERVER"
KINDS = ("predictor", "predictors", "predictor.wmlserving.ai.ibm.com")


def predictor_names(resource: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names that are asked for; none means all. Raises UsageError for another resource."""
    kind, slash, name = resource.partition("/")
    if kind.lower() not in KINDS:
        raise click.UsageError(f'The server has no resource type "{kind}"; it has predictors.')
    if slash and not name:
        raise click.UsageError(f"{resource!r} has no name.")
    if slash and names:
        raise click.UsageError("Either predictor/NAME or predictor NAME.")
    return (name,) if slash else tuple(names)
