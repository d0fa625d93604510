"""The command group: which commands there are, and what happens to errors that none of them took.

A command's module is imported when it is called: `get` does not wait for what `serve` needs.
"""

import importlib
import sys

import click

from router.about import VERSION
from router.cli.names import DEFAULT_SERVER, SERVER_ENV, TLS_ENV

# command: its module and the function in it. In the order of the help.
COMMANDS = {
    "quickstart": "router.cli.serve:quickstart_command",
    "serve": "router.cli.serve:serve_command",
    "node": "router.cli.node:node_command",
    "apply": "router.cli.apply:apply_command",
    "diff": "router.cli.diff:diff_command",
    "get": "router.cli.get:get_command",
    "describe": "router.cli.describe:describe_command",
    "top": "router.cli.top:top_command",
    "infer": "router.cli.infer:infer_command",
    "delete": "router.cli.delete:delete_command",
    "drain": "router.cli.drain:drain_command",
    "forget": "router.cli.forget:forget_command",
    "export": "router.cli.backup:export_command",
    "import": "router.cli.backup:import_command",
    "validate": "router.cli.validate:validate_command",
    "convert": "router.cli.convert:convert_command",
    "schema": "router.cli.schema:schema_command",
    "adapter": "router.cli.adapter:adapter_command",
    "controller": "router.cli.controller:controller_command",
}


class LazyGroup(click.Group):
    """A group that imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, function = place.partition(":")
        command = getattr(importlib.import_module(module), function)
        if not isinstance(command, click.Command):
            raise TypeError(f"{place} is no command")
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="wml-serving")
@click.option(
    "--server",
    metavar="HOST:PORT",
    envvar=SERVER_ENV,
    default=DEFAULT_SERVER,
    show_default=True,
    show_envvar=True,
    help="The management address of a running `serve` or `node`.",
)
@click.option(
    "--tls",
    type=click.Path(exists=True, file_okay=False),
    metavar="FOLDER",
    envvar=TLS_ENV,
    show_envvar=True,
    help="ca.crt, tls.crt and tls.key, for nodes that ask for a certificate.",
)
@click.pass_context
def wml_serving(ctx: click.Context, server: str, tls: str | None) -> None:
    """Serves machine-learning models, and manages the Predictors that name them.

    \b
    Start it (or `make run`), then in another terminal:
      wml-serving validate -f my-predictor.yaml
      wml-serving apply -f my-predictor.yaml
      wml-serving get predictors --watch
      wml-serving infer my-predictor -f request.json
      wml-serving describe predictor my-predictor
      wml-serving delete predictor my-predictor

    \b
    Completion of commands, options and names of Predictors, for this shell:
      bash   eval "$(_WML_SERVING_COMPLETE=bash_source wml-serving)"
      zsh    eval "$(_WML_SERVING_COMPLETE=zsh_source wml-serving)"
      fish   _WML_SERVING_COMPLETE=fish_source wml-serving | source

    \b
    Exit codes: 0 done, 1 refused or failed, 2 not a command, 130 interrupted. `diff` has its own.
    """
    ctx.obj = server


def main() -> None:
    """The program. No trace reaches a user."""
    try:
        wml_serving(prog_name="wml-serving")
    except Exception as error:  # noqa: BLE001 - the top of the program
        click.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
        sys.exit(1)
