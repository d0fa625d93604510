"""What all servers are told of their logs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from mesh.ops import logs

Command = TypeVar("Command", bound=Callable[..., Any])


def log_options(command: Command) -> Command:
    """Adds the options; `configure_logs` reads them."""
    form = click.option(
        "--log-format",
        type=click.Choice([form.value for form in logs.LogFormat]),
        default="text",
        show_default=True,
    )
    return form(click.option("--log-level", default="info", show_default=True)(command))


def configure_logs(told: Mapping[str, Any]) -> None:
    """As a command's options say."""
    logs.configure(logs.LogFormat(told["log_format"]), told["log_level"])
