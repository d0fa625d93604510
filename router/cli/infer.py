"""`wml-serving infer`: one request to a Predictor, and the answer."""

import json
import sys
from typing import Any

import click
import grpc

from mesh.core.errors import InvalidRequest
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.v2_json import to_json, to_request
from router.cli.connection import Management, channel_to, connected, failure_of, server_option
from router.cli.failures import Failure
from router.cli.files import STDIN, read_whole
from router.cli.names import DEFAULT_INFERENCE, INFERENCE_ENV, complete_name
from router.cli.waiting import WaitingLine

LIMIT_S = 120.0


@click.command("infer")
@click.argument("name", shell_complete=complete_name)
@click.option(
    "-f", "--filename", "file", required=True, metavar="FILE|-", help="The request, in V2 JSON."
)
@click.option(
    "--inference-server",
    "inference",
    metavar="HOST:PORT",
    envvar=INFERENCE_ENV,
    default=DEFAULT_INFERENCE,
    show_default=True,
    show_envvar=True,
    help="The address where clients call.",
)
@click.option(
    "--timeout",
    "limit_s",
    type=click.FloatRange(min=0, min_open=True),
    default=LIMIT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait, for the load and the answer.",
)
@server_option
def infer_command(name: str, file: str, inference: str, limit_s: float, server: str) -> None:
    """Sends a request to Predictor NAME and prints the answer as V2 JSON.

    The request is as REST has it ({"inputs": [{"name", "shape", "datatype", "data"}]}; data flat or
    nested), or as grpcurl takes it, with "contents". While the model is loading, standard error
    says what the request waits for. Exit codes: 0 answered, 1 refused, failed or not in time.

    \b
      wml-serving infer example-mnist-predictor -f docs/requests/mnist.json
      echo '{"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1, 2]}]}' |
        wml-serving infer my-predictor -f -
    """
    request = _request(name, file)
    with channel_to(inference) as channel, connected(server) as management:
        stub: Any = kfs_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelInfer.future(request, timeout=limit_s)
        _show_waiting(management, name, call)
        try:
            answer = call.result()
        except grpc.RpcError as error:
            raise failure_of(error, inference, name, limit_s) from error
    click.echo(_text(answer))


def _request(name: str, file: str) -> kfs.ModelInferRequest:
    place = "standard input" if file == STDIN else file
    try:
        return to_request(json.loads(read_whole(file)), name)
    except InvalidRequest as error:
        raise Failure(f"error: {place}: {error.message}") from error
    except json.JSONDecodeError as error:
        raise Failure(f"error: {place}: not JSON: {error}") from error
    except RecursionError as error:
        raise Failure(f"error: {place}: nested too deeply") from error


def _show_waiting(management: Management, name: str, call: Any) -> None:
    """Returns once the call has ended; where nobody answers for the management, says nothing."""
    events = management.events(name)
    call.add_done_callback(lambda _: events.cancel())
    with WaitingLine(name, sys.stderr) as line:
        try:
            for event in events:
                line.show(event.progress)
        except grpc.RpcError:
            pass  # cancelled, since the answer is there, or no management: the answer comes anyway


def _text(answer: kfs.ModelInferResponse) -> str:
    """JSON with one output a line, however many values it has."""
    try:
        fields = to_json(answer)
    except InvalidRequest as error:
        raise Failure(f"error: the answer cannot be shown: {error.message}") from error
    outputs = [f"\n    {json.dumps(item, ensure_ascii=False)}" for item in fields.pop("outputs")]
    rest = [
        f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)},\n"
        for key, value in fields.items()
    ]
    end = "\n  ]" if outputs else "]"
    return "{\n" + "".join(rest) + '  "outputs": [' + ",".join(outputs) + end + "\n}"
