"""`wml-serving adapter`: the program beside a model server. `serve` and pods start it."""

import click

from router.cli.failures import Failure

SERVER_TYPES = ("mlserver",)


@click.command("adapter")
@click.argument("server_type", type=click.Choice(SERVER_TYPES))
def adapter_command(server_type: str) -> None:
    """Pulls models for a model server beside it and loads them there, until SIGTERM.

    Reads its settings from the environment (ADAPTER_SOCKET, RUNTIME_PORT, ...). People need this
    only to look at it alone: `serve` starts one.
    """
    # Imported here, since `--help` and completion need none of it.
    from mesh.adapters.main import run_program
    from mesh.ops import logs
    from mesh.ops.settings import AdapterSettings, InvalidSettings

    try:
        settings = AdapterSettings.read()
        logs.configure(settings.log_format, settings.log_level)
        run_program(settings, server_type)
    except InvalidSettings as error:
        raise Failure("\n".join(f"error: {problem}" for problem in error.problems)) from error
