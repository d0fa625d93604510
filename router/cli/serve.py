"""`wml-serving serve` and `quickstart`: what they are told, and what they say once they listen."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from mesh.ops.tasks import first_of
from mesh.wire.documents import InvalidManifest, load_documents
from mesh.wire.manifests import parse_predictor
from mesh.wire.runtime_manifest import ServingRuntimeManifest, parse_runtime
from router.cli.log_options import configure_logs, log_options
from router.cli.rest_option import rest_option
from router.cli.runtime_options import silence_option
from router.node import Doors, RunningNode
from router.serve import ServeSettings, StartFailed, serve

Command = TypeVar("Command", bound=Callable[..., Any])

WALK_THROUGH = """
wml-serving is up. In another terminal:

  {grpcurl} -plaintext -d @ localhost:{port} \\
    inference.GRPCInferenceService.ModelInfer < docs/requests/mnist.json
  {cli} get predictors
  {cli} apply -f deploy/example-predictors/
  {cli} delete predictor example-mnist-predictor

Stop it with Ctrl-C; what was applied is there again at the next start.
"""


def serve_options(command: Command) -> Command:
    """The options that `serve` and `quickstart` share."""
    options = (
        click.option(
            "--runtime",
            type=click.Path(exists=True, dir_okay=False, path_type=Path, resolve_path=True),
            default="deploy/runtimes/mlserver-1.x.yaml",
            show_default=True,
            help="The ServingRuntime to run.",
        ),
        click.option(
            "--runtime-bin",
            type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
            required=True,
            help="The folder with the runtime's programs, such as venv/bin.",
        ),
        click.option(
            "--state",
            type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
            required=True,
            help="The folder for what survives a restart, pulled models and logs.",
        ),
        click.option(
            "-f",
            "--predictors",
            type=click.Path(exists=True, path_type=Path, resolve_path=True),
            multiple=True,
            help="A file or folder of Predictors to create at start if they do not exist.",
        ),
        click.option(
            "--listen", default="0.0.0.0:8033", show_default=True, help="Where clients call."
        ),
        rest_option,
        click.option(
            "--management",
            default="127.0.0.1:8034",
            show_default=True,
            help="Where apply, get, delete and watch are; keep it on loopback.",
        ),
        click.option(
            "--operations",
            default="127.0.0.1:2112",
            show_default=True,
            help="Where /livez and /readyz are.",
        ),
        silence_option,
        log_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("serve")
@serve_options
@click.option(
    "--storage-config",
    type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
    required=True,
    help="The folder with a JSON file a storage key.",
)
def serve_command(storage_config: Path, **told: Any) -> None:
    """Serves models on this machine: a node, an adapter and the runtime's own process.

    \b
    wml-serving serve --runtime-bin mlserver-venv/bin --state ~/.wml-serving \\
        --storage-config ./storage-config
    """
    run_program(_serve(storage_config, told, _say_ready))


@click.command("quickstart")
@serve_options
@click.option(
    "--deploy",
    type=click.Path(exists=True, file_okay=False, path_type=Path, resolve_path=True),
    default="deploy",
    show_default=True,
    help="The checkout's deploy folder.",
)
def quickstart_command(deploy: Path, **told: Any) -> None:
    """`serve` with an S3 server and the example models: what `make run` starts."""
    run_program(_quickstart(deploy, told))


async def _serve(
    storage_config: Path, told: dict[str, Any], on_start: Callable[[RunningNode], None]
) -> None:
    configure_logs(told)
    settings = ServeSettings(
        runtime=read_runtime(told["runtime"]),
        runtime_bin=told["runtime_bin"],
        storage_config=storage_config,
        state=told["state"],
        doors=Doors(
            told["listen"], told["management"], told["operations"], rest=told["rest_listen"]
        ),
        predictors=[document for path in told["predictors"] for document in _predictors(path)],
        silence_s=told["runtime_silence"],
    )
    await serve(settings, on_start)


async def _quickstart(deploy: Path, told: dict[str, Any]) -> None:
    from router.quickstart import example_storage  # the object store is not for `serve`

    storage_config = told["state"] / "storage-config"
    python = told["runtime_bin"] / "python"
    async with example_storage(told["state"], storage_config, deploy, python):
        await _serve(storage_config, told, _say_walk_through)


def run_program(work: Coroutine[Any, Any, None]) -> None:
    """Runs a server until it ends; what it cannot start with is said in one line."""
    import uvloop

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except* StartFailed as errors:
        sys.exit(f"wml-serving cannot start: {first_of(errors)}")


def read_runtime(path: Path) -> ServingRuntimeManifest:
    """The one ServingRuntime of a file; raises StartFailed."""
    documents = _documents(path)
    if len(documents) != 1:
        raise StartFailed(f"{path}: must hold one ServingRuntime, not {len(documents)} documents")
    try:
        return parse_runtime(documents[0])
    except InvalidManifest as error:
        raise StartFailed(f"{path}:\n{error.message}") from error


def _predictors(path: Path) -> list[object]:
    documents = _documents(path)
    for document in documents:
        try:
            parse_predictor(document)
        except InvalidManifest as error:
            raise StartFailed(f"{path}:\n{error.message}") from error
    return documents


def _documents(path: Path) -> list[object]:
    """The documents of a file, or of all files of a folder."""
    files = sorted(path.glob("*.y*ml")) + sorted(path.glob("*.json")) if path.is_dir() else [path]
    try:
        return [document for file in files for document in load_documents(file.read_text())]
    except InvalidManifest as error:
        raise StartFailed(f"{path}: {error.message}") from error


def _say_ready(running: RunningNode) -> None:
    click.echo(f"wml-serving is up: inference on port {running.port}", err=True)


def _say_walk_through(running: RunningNode) -> None:
    scripts = Path(sys.executable).parent
    text = WALK_THROUGH.format(
        grpcurl=scripts / "grpcurl", cli=scripts / "wml-serving", port=running.port
    )
    click.echo(text)
