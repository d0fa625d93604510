"""`wml-serving controller`: what users apply to Kubernetes, brought about there and in the mesh."""

import asyncio
import secrets
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click

from mesh.ops import logs
from mesh.ops.clock import REAL_CLOCK
from mesh.peers.tls import NodeTls
from router.cli.serve import run_program
from router.serve import StartFailed


@click.command("controller")
@click.option(
    "--namespace",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    required=True,
    help="Whose Predictors and ServingRuntimes it is about.",
)
@click.option(
    "--name",
    envvar="POD_NAME",
    show_envvar=True,
    default=socket.gethostname,
    show_default="the host's",
    help="Who it is in the election.",
)
@click.option(
    "--image",
    envvar="WML_IMAGE",
    show_envvar=True,
    default="wml-serving/wml-serving:0.1.0",
    show_default=True,
    help="The image of wml-serving in runtime pods.",
)
@click.option(
    "--store",
    envvar="WML_STORE",
    show_envvar=True,
    default="",
    help="What nodes are told as their --store; the Secret model-serving-etcd if not given.",
)
@click.option(
    "--management",
    default="",
    metavar="TARGET",
    show_default="the Service wml-serving-internal",
    help="A gRPC target that leads to any node's --internal door.",
)
@click.option(
    "--tls",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Where it puts the certificates that it issues, and uses them; without it, in the clear.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For one outside of the cluster.",
)
@click.option("--health", default="0.0.0.0:8081", show_default=True, help="/healthz and /readyz.")
@click.option("--metrics", default="0.0.0.0:8080", show_default=True, help="/metrics.")
@click.option(
    "--log-format",
    type=click.Choice([form.value for form in logs.LogFormat]),
    default="text",
    show_default=True,
)
@click.option("--log-level", default="info", show_default=True)
def controller_command(**told: Any) -> None:
    """Brings about in Kubernetes and in the mesh what users apply: Predictors and ServingRuntimes.

    Of several, one leads. See docs/kubernetes.md.
    """
    run_program(_run(told))


async def _run(told: dict[str, Any]) -> None:
    from mesh.controller.kube.client import NoCluster
    from mesh.controller.leader import LostLead

    logs.configure(logs.LogFormat(told["log_format"]), told["log_level"])
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(_control(told))
            await stop.wait()
            running.cancel()
    except* NoCluster as errors:
        raise StartFailed(f"no Kubernetes: {_first(errors)}") from errors
    except* LostLead as errors:
        raise StartFailed(f"the lead is lost: {_first(errors)}") from errors
    except* OSError as errors:
        raise StartFailed(str(_first(errors))) from errors


async def _control(told: dict[str, Any]) -> None:
    """Until it is cancelled. The package of Kubernetes is wanted here alone."""
    from mesh.controller.controller import Controller, Place
    from mesh.controller.doors import Doors, Measures
    from mesh.controller.kube.client import KubeClient, api_client
    from mesh.controller.management import Connections
    from mesh.controller.names import INTERNAL_PORT, INTERNAL_SERVICE
    from mesh.controller.pods import Installation

    namespace, folder = told["namespace"], told["tls"]
    target = told["management"] or f"dns:///{INTERNAL_SERVICE}.{namespace}:{INTERNAL_PORT}"
    mesh = Connections(target, None if folder is None else NodeTls(folder))
    identity = f"{told['name']}-{secrets.token_hex(4)}"
    place = Place(namespace, identity, Installation(told["image"], told["store"]), folder)
    measures = Measures()
    async with AsyncExitStack() as stack:
        api = await api_client(told["kubeconfig"])
        stack.push_async_callback(api.close)
        kube = KubeClient(api, REAL_CLOCK.wall_s, measures.called)
        controller = Controller(kube, mesh, place, REAL_CLOCK)
        doors = Doors(measures, lambda: controller.why_not_ready)
        stack.push_async_callback(doors.close)
        await doors.open(told["health"], told["metrics"])
        await controller.run()


def _first(errors: BaseException) -> BaseException:
    while isinstance(errors, BaseExceptionGroup):
        errors = errors.exceptions[0]
    return errors
