"""What all servers with a runtime are told of it."""

import click

from mesh.runtime.liveness import SILENCE_S

silence_option = click.option(
    "--runtime-silence",
    type=click.FloatRange(min=0),
    default=SILENCE_S,
    show_default=True,
    metavar="SECONDS",
    help="After so long without any answer, and no load, the runtime counts as lost; 0: never.",
)
