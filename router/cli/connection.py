"""The management side of a running server, as the commands call it; gRPC ends here.

Every call has a time limit but `watch`. Errors become a `Failure` in kubectl's words.
"""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc

from mesh.peers.tls import NODE_NAME, NodeTls, UnusableTls
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc
from mesh.wire.status_codes import DETAILS_KEY
from router.cli.failures import Failure, NotFound, TimedOut
from router.cli.names import PLURALS, server_of

CALL_LIMIT_S = 60.0
# All Predictors of a large mesh take longer than one.
READ_LIMIT_S = 600.0
CHANNEL_OPTIONS = (
    # A list may be long, and a proxy of the shell's is not meant for this.
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
)
# kubectl's words for the codes that a server answers with.
WORDS = {
    grpc.StatusCode.INVALID_ARGUMENT: "Invalid",
    grpc.StatusCode.NOT_FOUND: "NotFound",
    grpc.StatusCode.ABORTED: "Conflict",
    grpc.StatusCode.ALREADY_EXISTS: "AlreadyExists",
    grpc.StatusCode.FAILED_PRECONDITION: "Forbidden",
    grpc.StatusCode.PERMISSION_DENIED: "Forbidden",
    grpc.StatusCode.UNAVAILABLE: "ServiceUnavailable",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "TooManyRequests",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Timeout",
    grpc.StatusCode.UNIMPLEMENTED: "MethodNotAllowed",
}
RESULTS = {
    pb.ApplyResponse.CREATED: "created",
    pb.ApplyResponse.CONFIGURED: "configured",
    pb.ApplyResponse.UNCHANGED: "unchanged",
}

READ = {
    "predictor": pb.PREDICTOR,
    "model": pb.MODEL,
    "node": pb.NODE,
    "copy": pb.COPY,
    "runtime": pb.RUNTIME,
}

Resource = dict[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])


def server_option(command: Command) -> Command:
    """`--server` after a command; before it, it is the group's. The argument is `server`."""
    return click.option(
        "--server",
        metavar="HOST:PORT",
        callback=lambda ctx, _option, value: value or server_of(ctx),
        help="The management address; also before the command, or in WML_SERVING_SERVER.",
    )(command)


class Management:
    """The calls of one server."""

    def __init__(
        self, channel: grpc.Channel, server: str, *, limit_s: float = CALL_LIMIT_S
    ) -> None:
        self._limit_s = limit_s
        self._stub = pb_grpc.ManagementStub(channel)
        self._server = server

    def apply(self, document: Resource, *, is_dry_run: bool = False) -> str:
        """Creates or changes a Predictor: `created`, `configured` or `unchanged`."""
        request = pb.ApplyRequest(json=json.dumps(document), dry_run=is_dry_run)
        with self._errors(_name(document)):
            answer = self._stub.Apply(request, timeout=self._limit_s)
        return RESULTS[answer.result]

    def get(self, name: str) -> Resource:
        with self._errors(name):
            answer = self._stub.Get(pb.GetRequest(name=name), timeout=self._limit_s)
        return _resource(answer.json)

    def apply_begun(self, document: Resource) -> Callable[[], str]:
        """As `apply`, but the server is waited for where the answer is asked for."""
        request = pb.ApplyRequest(json=json.dumps(document))
        call = self._stub.Apply.future(request, timeout=self._limit_s)

        def result() -> str:
            with self._errors(_name(document)):
                return RESULTS[call.result().result]

        return result

    def read(self, kind: str, name: str = "") -> Iterator[Resource]:
        """All of a kind in the order of their names, or those that a name stands for."""
        request = pb.ReadRequest(kind=READ[kind], name=name)
        limit_s = self._limit_s if self._limit_s < CALL_LIMIT_S else READ_LIMIT_S
        with self._errors(name, PLURALS[kind], limit_s):
            for event in self._stub.Read(request, timeout=limit_s):
                yield _resource(event.json)

    def follow(
        self, kind: str, name: str = "", *, limit_s: float | None = None
    ) -> Iterator[tuple[str, Resource | None]]:
        """Names with what they are now, None where gone: all that exist, then each change."""
        with self._errors(name, PLURALS[kind], limit_s):
            request = pb.ReadRequest(kind=READ[kind], name=name, follow=True)
            events = self._stub.Read(request, timeout=limit_s)
            try:
                for event in events:
                    yield event.name, _resource(event.json) if event.json else None
            finally:
                events.cancel()

    def drain(self, node: str) -> None:
        """Returns once the node has begun to hand over."""
        with self._errors(node, PLURALS["node"]):
            self._stub.Drain(pb.DrainRequest(node=node), timeout=self._limit_s)

    def drained(self, node: str, limit_s: float) -> Sequence[str] | None:
        """Returns once the node has handed over: what only it has; None where it cannot tell."""
        request = pb.DrainRequest(node=node, wait=True)
        with self._errors(node, PLURALS["node"], limit_s):
            answer = self._stub.Drain(request, timeout=limit_s)
        return answer.kept if answer.is_handed_over else None

    def forget(self, kind: str, name: str, node: str) -> tuple[Sequence[str], Sequence[str]]:
        """The nodes where a failure was forgotten, and those that did not answer."""
        request = pb.ForgetFailureRequest(node=node)
        setattr(request, kind, name)
        with self._errors(name, plural=""):
            answer = self._stub.ForgetFailure(request, timeout=self._limit_s)
        return answer.nodes, answer.unreachable

    def usage(self) -> pb.UsageResponse:
        """What the nodes have been used for so far."""
        with self._errors():
            answer: pb.UsageResponse = self._stub.Usage(pb.UsageRequest(), timeout=self._limit_s)
        return answer

    def describe(self, name: str) -> Resource:
        """The object with its models, copies and history."""
        with self._errors(name):
            answer = self._stub.Describe(pb.DescribeRequest(name=name), timeout=self._limit_s)
        return _resource(answer.json)

    def list(self) -> list[Resource]:
        with self._errors():
            answer = self._stub.List(pb.ListRequest(), timeout=self._limit_s)
        return [_resource(text) for text in answer.json]

    def delete(self, name: str) -> None:
        with self._errors(name):
            self._stub.Delete(pb.DeleteRequest(name=name), timeout=self._limit_s)

    def watch(self, name: str = "") -> Iterator[tuple[str, Resource | None]]:
        """Names with what they are now, None where deleted: all that exist, then each change."""
        with self._errors(name):
            events = self.events(name)
            try:
                for event in events:
                    yield event.name, _resource(event.json) if event.json else None
            finally:
                events.cancel()

    def events(self, name: str) -> Any:
        """The watch itself: to be iterated, and cancelled from wherever; ends by an RpcError."""
        return self._stub.Watch(pb.WatchRequest(name=name))

    @contextmanager
    def _errors(
        self, name: str = "", plural: str = "predictors", limit_s: float | None = None
    ) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            limit_s = limit_s or self._limit_s
            raise failure_of(error, self._server, name, limit_s, plural) from error


def failure_of(
    error: Any, server: str, name: str, limit_s: float, plural: str = "predictors"
) -> Failure:
    """What to say of a call about `name` that ended by a status within `limit_s`.

    `plural`: what `name` is one of; empty where it is for the server to say what there is not.
    """
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND and plural and _is_answer(error):
        return NotFound(name, plural)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and not _is_answer(error):
        return TimedOut(server, limit_s)
    if code is grpc.StatusCode.UNAVAILABLE and not _is_answer(error):
        return Failure(
            f"The connection to the server {server} was refused - is wml-serving serve running?"
        )
    return Failure(f"Error from server ({WORDS.get(code, 'InternalError')}): {error.details()}")


@contextmanager
def connected(server: str) -> Iterator[Management]:
    """The management side of `server`; nothing is sent before the first call."""
    with channel_to(server, tls_folder()) as channel:
        yield Management(channel, server)


def tls_folder() -> Path | None:
    """Where the certificate for management is, if it asks for one."""
    folder = click.get_current_context().find_root().params.get("tls")
    return None if folder is None else Path(folder)


@contextmanager
def channel_to(server: str, tls: Path | None = None) -> Iterator[grpc.Channel]:
    """A channel to a server; `tls` is the folder of the certificate to show.

    Meanwhile Ctrl-C ends the process at once: an exception out of the midst of a gRPC call may
    leave a channel that waits for ever when it is closed, and there is nothing here to clean up.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with _channel(server, tls) as channel:
            yield channel
    finally:
        signal.signal(signal.SIGINT, before)


def _channel(server: str, tls: Path | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(server, options=CHANNEL_OPTIONS)
    try:
        credentials = NodeTls(tls).channel_credentials()
    except UnusableTls as error:
        raise click.UsageError(f"--tls: {error}") from error
    options = (*CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", NODE_NAME))
    return grpc.secure_channel(server, credentials, options=options)


def _is_answer(error: Any) -> bool:
    """Whether a server said it: ours add details to every error, a failed connection has none."""
    return any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())


def _resource(text: str) -> Resource:
    resource = json.loads(text)
    if not isinstance(resource, dict):
        raise TypeError("the server sent no object")
    return resource


def _name(document: Resource) -> str:
    return str(document["metadata"]["name"])
