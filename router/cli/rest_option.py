"""The option of the servers for clients that speak HTTP."""

import click

NONE = "none"


def _address(_: click.Context, __: click.Parameter, told: str) -> str:
    """Empty where there is to be no REST."""
    return "" if told == NONE else told


rest_option = click.option(
    "--rest-listen",
    default="0.0.0.0:8008",
    show_default=True,
    metavar=f"HOST:PORT|{NONE}",
    callback=_address,
    help="Where clients that speak HTTP call; none: nowhere.",
)
