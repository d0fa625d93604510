"""`wml-serving controller`: what users apply to Kubernetes, brought about there and in the mesh."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import click

from mesh.ops.tasks import first_of
from router.cli.log_options import configure_logs, log_options
from router.cli.serve import run_program
from router.serve import StartFailed


@click.command("controller")
@click.option(
    "--namespace",
    "namespaces",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    multiple=True,
    required=True,
    metavar="NAME",
    help="Whose Predictors and ServingRuntimes it is about; may be given several times.",
)
@click.option(
    "--all-namespaces",
    is_flag=True,
    help="It is about every namespace with the label wmlserving-enabled=true.",
)
@click.option(
    "--home",
    envvar="POD_NAMESPACE",
    show_envvar=True,
    metavar="NAME",
    show_default="the first --namespace",
    help="The namespace in which it is elected.",
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
@log_options
def controller_command(**told: Any) -> None:
    """Brings about in Kubernetes and in the mesh what users apply: Predictors and ServingRuntimes.

    Of several, one leads. See docs/kubernetes.md.
    """
    run_program(_run(told))


async def _run(told: dict[str, Any]) -> None:
    # The packages of Kubernetes are wanted here alone.
    try:
        from mesh.controller.controller import Settings, controller
        from mesh.controller.leader import LostLead
        from mesh.controller.pods import Installation
        from mesh.kube.client import NoCluster
    except ModuleNotFoundError as error:
        extra = f"the extra `kubernetes` of wml-serving is not installed: no {error.name}"
        raise StartFailed(extra) from error

    configure_logs(told)
    namespaces = told["namespaces"]
    if told["management"] and (told["all_namespaces"] or len(namespaces) > 1):
        raise StartFailed("--management leads to one mesh, and each namespace has its own")
    settings = Settings(
        told["home"] or namespaces[0],
        None if told["all_namespaces"] else frozenset(namespaces),
        told["name"],
        Installation(told["image"], told["store"]),
        *(told[name] for name in ("management", "tls", "kubeconfig", "health", "metrics")),
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(controller(settings))
            await stop.wait()
            running.cancel()
    except* NoCluster as errors:
        raise StartFailed(f"no Kubernetes: {first_of(errors)}") from errors
    except* LostLead as errors:
        raise StartFailed(f"the lead is lost: {first_of(errors)}") from errors
    except* OSError as errors:
        raise StartFailed(str(first_of(errors))) from errors
