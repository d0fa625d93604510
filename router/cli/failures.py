"""What a command says when it cannot do what it was asked: words of kubectl, on stderr, exit 1."""

from typing import IO, Any

import click


class Failure(click.ClickException):
    """Ends the command; the message is printed as it is."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.message, err=True)


class NotFound(Failure):
    """The server has no such Predictor, or whatever `plural` says."""

    def __init__(self, name: str, plural: str = "predictors") -> None:
        super().__init__(f'Error from server (NotFound): {plural} "{name}" not found')


class TimedOut(Failure):
    """The server did not answer in time."""

    def __init__(self, server: str, limit_s: float) -> None:
        super().__init__(f"The server {server} did not answer within {limit_s:.0f} s")
