"""A management server on loopback over a dict, for those that call one.

Faults come by its arguments: `refusals` answers a name with a status, `changes` is what a watch
tells after what exists; a method in `holds` does not end before the caller leaves. What `Describe`
adds to a resource is in `descriptions`. What is there of other kinds is in `others`, and `news` is
what following them tells after that. `usages` are answered one after the other, and then nothing.
"""

import json
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from mesh.core.errors import InvalidRequest, MeshError, ModelNotFound, NoSuchResource, Unavailable
from mesh.wire import status_codes
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc


@dataclass
class DictManagement(pb_grpc.ManagementServicer):
    """`resources` by name; `calls` are the methods and names in the order they came."""

    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    descriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: Mapping[str, MeshError] = field(default_factory=dict)
    changes: Sequence[pb.WatchEvent] = ()
    others: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)
    news: Sequence[pb.ReadEvent] = ()
    drained: pb.DrainResponse = field(default_factory=pb.DrainResponse)
    forgotten: pb.ForgetFailureResponse = field(default_factory=pb.ForgetFailureResponse)
    usages: Sequence[pb.UsageResponse] = ()
    holds: Collection[str] = ()
    calls: list[tuple[str, str]] = field(default_factory=list)

    def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.ApplyResponse:
        resource = json.loads(request.json)
        name = resource["metadata"]["name"]
        self._called("Apply", name, context)
        if set(resource) != {"apiVersion", "kind", "metadata", "spec"}:
            _refuse(InvalidRequest("json", f"unexpected {sorted(resource)}"), context)
        before = self.resources.get(name)
        if not request.dry_run:
            self.resources[name] = resource
        if before is None:
            return pb.ApplyResponse(result=pb.ApplyResponse.CREATED)
        is_same = before["spec"] == resource["spec"]
        return pb.ApplyResponse(
            result=pb.ApplyResponse.UNCHANGED if is_same else pb.ApplyResponse.CONFIGURED
        )

    def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        self._called("Get", request.name, context)
        return pb.GetResponse(json=json.dumps(self._existing(request.name, context)))

    def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        self._called("Describe", request.name, context)
        resource = self._existing(request.name, context)
        shown = resource | self.descriptions.get(request.name, {})
        return pb.DescribeResponse(json=json.dumps(shown))

    def List(self, _request: pb.ListRequest, context: Any) -> pb.ListResponse:
        self._called("List", "", context)
        self._hold("List", context)
        return pb.ListResponse(json=[json.dumps(item) for item in self.resources.values()])

    def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:
        self._called("Delete", request.name, context)
        self._existing(request.name, context)
        del self.resources[request.name]
        return pb.DeleteResponse()

    def Watch(self, request: pb.WatchRequest, context: Any) -> Iterator[pb.WatchEvent]:
        self._called("Watch", request.name, context)
        existing = [pb.WatchEvent(name=n, json=json.dumps(r)) for n, r in self.resources.items()]
        yield from (e for e in [*existing, *self.changes] if request.name in ("", e.name))
        self._hold("Watch", context)

    def Read(self, request: pb.ReadRequest, context: Any) -> Iterator[pb.ReadEvent]:
        kind = pb.Kind.Name(request.kind)
        self._called(f"Read {kind}", request.name, context)
        there = (
            self.resources if request.kind == pb.PREDICTOR else self.others.get(request.kind, {})
        )
        found = [
            pb.ReadEvent(name=name, json=json.dumps(resource))
            for name, resource in sorted(there.items())
            if request.name in ("", name, *name.split("/"))
        ]
        if request.name and not found and not request.follow:
            _refuse(NoSuchResource(kind.lower(), request.name), context)
        yield from found
        if request.follow:
            yield from self.news
            self._hold("Read", context)

    def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        self._called("Drain", request.node, context)
        if request.node not in self.others.get(pb.NODE, {}):
            _refuse(NoSuchResource("node", request.node), context)
        if not request.wait:
            return pb.DrainResponse()
        self._hold("Drain", context)
        return self.drained

    def Usage(self, _request: pb.UsageRequest, context: Any) -> pb.UsageResponse:
        self._called("Usage", "", context)
        number = len(self.calls) - 1
        if number >= len(self.usages):
            _refuse(Unavailable("no more usages"), context)
        return self.usages[number]

    def ForgetFailure(
        self, request: pb.ForgetFailureRequest, context: Any
    ) -> pb.ForgetFailureResponse:
        kind = request.WhichOneof("of")
        name = getattr(request, kind)
        self._called(f"ForgetFailure {kind} {request.node}".rstrip(), name, context)
        return self.forgotten

    def _called(self, method: str, name: str, context: Any) -> None:
        self.calls.append((method, name))
        if name in self.refusals:
            _refuse(self.refusals[name], context)

    def _hold(self, method: str, context: Any) -> None:
        left = threading.Event()
        if method in self.holds and context.add_callback(left.set):
            left.wait()

    def _existing(self, name: str, context: Any) -> dict[str, Any]:
        if name not in self.resources:
            _refuse(ModelNotFound(name), context)
        return self.resources[name]


@contextmanager
def listening(management: DictManagement) -> Iterator[str]:
    """Serves it for as long as the context lasts; yields its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    pb_grpc.add_ManagementServicer_to_server(management, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def _refuse(error: MeshError, context: Any) -> None:
    context.set_trailing_metadata(status_codes.details(error))
    context.abort(status_codes.code(error), error.message)
