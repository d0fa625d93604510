"""`wml-serving node`: one node of a mesh."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mesh.ops.settings import InvalidSettings
from mesh.peers.tls import NodeTls
from mesh.wire.dataplane import parse_dataplane
from mesh.wire.documents import InvalidManifest, load_documents
from mesh.wire.policy import parse_policy
from router.cli.log_options import configure_logs, log_options
from router.cli.rest_option import rest_option
from router.cli.runtime_options import silence_option
from router.cli.serve import read_runtime, run_program
from router.member import MemberSettings, RuntimeBeside, member
from router.node import ANY_HOST, Doors, RunningNode
from router.serve import StartFailed
from router.stores import store_settings

Parsed = TypeVar("Parsed")


@click.command("node")
@click.option(
    "--store",
    envvar="ETCD_CONFIG",
    show_envvar=True,
    required=True,
    metavar="FILE|JSON|memory|peer:HOST:PORT",
    help="Where etcd is: a JSON object, or a file with one (docs/etcd.md). Without etcd: memory on"
    " the one node that keeps the store, and its --internal address on the others.",
)
@click.option(
    "--store-prefix",
    default="",
    metavar="TEXT",
    help="Below the root_prefix of an etcd: each mesh that shares the settings has its own, such as"
    " the name of its namespace.",
)
@click.option(
    "--name",
    envvar="POD_NAME",
    show_envvar=True,
    default=socket.gethostname,
    show_default="the host's",
    help="What the node's id begins with.",
)
@click.option(
    "--runtime",
    metavar="TARGET",
    help="The adapter: a gRPC target such as unix:/run/adapter.sock or 127.0.0.1:8085, which serves"
    " mmesh.ModelRuntime. Without one the node only routes.",
)
@click.option(
    "--data",
    metavar="TARGET",
    help="Where the runtime answers inference; the adapter's target if not given.",
)
@click.option(
    "--serving-runtime",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The ServingRuntime that describes the runtime: its name and model types.",
)
@click.option("--listen", default="0.0.0.0:8033", show_default=True, help="Where clients call.")
@rest_option
@click.option(
    "--internal",
    default="127.0.0.1:8034",
    show_default=True,
    help="Where other nodes and administrators call; not for clients.",
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    help="Where other nodes reach --internal, if that is not what it listens on.",
)
@click.option(
    "--operations",
    default="127.0.0.1:2112",
    show_default=True,
    help="Where /metrics, /livez and /readyz are.",
)
@click.option(
    "--tls",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="ca.crt, tls.crt and tls.key for --internal: nobody gets in without a certificate.",
)
@click.option("--zone", default="", help="Copies of a model are spread over zones.")
@click.option("--labels", default="", metavar="A,B", help="What model types may ask for.")
@click.option(
    "--dataplane",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="RPCs other than KServe's that are routed, too; see docs/custom-runtimes.md.",
)
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Labels that model types ask for, and when copies grow; see docs/placement.md. The same"
    " for all nodes.",
)
@click.option(
    "--connection-age",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="When a client's connection is renewed; a node that leaves waits as long.",
)
@click.option(
    "--hand-over",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a node that leaves waits for its models to be loaded elsewhere.",
)
@click.option(
    "--linger",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a node that says that it leaves lets in new clients: a balancer hears late.",
)
@silence_option
@log_options
def node_command(**told: Any) -> None:
    """Joins a mesh: a node that routes, and holds models where a runtime is beside it.

    \b
    wml-serving node --store etcd.json --runtime unix:/run/adapter.sock --data 127.0.0.1:8001 \\
        --serving-runtime deploy/runtimes/mlserver-1.x.yaml --internal 10.0.0.7:8034

    On SIGTERM it has its models loaded elsewhere, lets its clients go, and ends.
    """
    run_program(_join(told))


async def _join(told: dict[str, Any]) -> None:
    configure_logs(told)
    await member(_settings(told), _say_ready)


def _settings(told: dict[str, Any]) -> MemberSettings:
    try:
        store = store_settings(told["store"], told["store_prefix"])
    except InvalidSettings as error:
        raise StartFailed(str(error)) from error
    doors = Doors(
        told["listen"],
        told["internal"],
        told["operations"],
        connection_age_s=told["connection_age"],
        dataplane=_parsed("--dataplane", told["dataplane"], parse_dataplane),
        hand_over_s=told["hand_over"],
        linger_s=told["linger"],
        tls=None if told["tls"] is None else NodeTls(told["tls"]),
        rest=told["rest_listen"],
    )
    return MemberSettings(
        told["name"],
        store,
        _runtime(told),
        _address(told),
        doors,
        told["zone"],
        frozenset(label for label in told["labels"].split(",") if label),
        _parsed("--policy", told["policy"], parse_policy),
    )


def _parsed(option: str, file: Path | None, parse: Callable[[object], Parsed]) -> Parsed:
    """What a YAML or JSON file of one document says, or the defaults. Raises StartFailed."""
    if file is None:
        return parse(None)
    try:
        documents = load_documents(file.read_text())
        if len(documents) > 1:
            raise StartFailed(f"{option} {file}: has {len(documents)} documents, must have one")
        return parse(documents[0] if documents else None)
    except InvalidManifest as error:
        raise StartFailed(f"{option} {file}: {'; '.join(error.problems)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StartFailed(f"{option} {file}: cannot be read: {error}") from error


def _runtime(told: dict[str, Any]) -> RuntimeBeside | None:
    adapter, file = told["runtime"], told["serving_runtime"]
    if not adapter:
        if file or told["data"]:
            raise StartFailed("--serving-runtime and --data: go with --runtime")
        return None
    if file is None:
        raise StartFailed("--serving-runtime: required with --runtime")
    data = told["data"] or adapter
    return RuntimeBeside(read_runtime(file), adapter, data, told["runtime_silence"])


def _address(told: dict[str, Any]) -> str:
    """What other nodes are told. Raises StartFailed where that cannot be known."""
    address = str(told["address"] or told["internal"])
    host, _, port = address.rpartition(":")
    if host in (name for name in ANY_HOST if not name.startswith("127.")):
        raise StartFailed(f"--address: required, as --internal {address} names no one address")
    if not port.isdigit() or int(port) == 0:
        raise StartFailed(f"--address: {address} has no port that other nodes could call")
    return address


def _say_ready(running: RunningNode) -> None:
    text = f"wml-serving node {running.node.identity.id} is up: inference on port {running.port}"
    click.echo(text, err=True)
