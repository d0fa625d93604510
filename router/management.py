"""The management side of a node: apply, get, list, describe, delete and watch Predictors.

It listens on its own address and never where inference is: who reaches this may change everything.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from mesh.agent.engine import Node
from mesh.agent.predictors import Outcome, advance
from mesh.core.errors import InvalidRequest, MeshError, ModelNotFound
from mesh.core.ids import PredictorName
from mesh.core.spec import PredictorSpec
from mesh.core.status import predictor_status
from mesh.core.transition import Applied, Event, Removed, Retry, step
from mesh.ops.clock import wall_s
from mesh.registry.port import Registry
from mesh.wire import resources
from mesh.wire.documents import load_documents
from mesh.wire.manifests import parse_predictor
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc
from router.description import describe, progress
from router.refusal import Context, refuse

Result = pb.ApplyResponse.Result


class Management(pb_grpc.ManagementServicer):
    """The calls of wml_management.proto, over the node's view and the store."""

    def __init__(self, node: Node, registry: Registry, endpoints: resources.Endpoints) -> None:
        self._node = node
        self._registry = registry
        self._endpoints = endpoints

    def register(self, server: grpc.aio.Server) -> None:
        """Adds these calls to a server that is for administrators and other nodes alone."""
        pb_grpc.add_ManagementServicer_to_server(self, server)

    async def apply(self, document: object) -> pb.ApplyResponse.Result:
        """Creates or changes a Predictor, and returns once this node acts on it."""
        spec = parse_predictor(document)
        outcome = await self._step(spec.name, Applied(spec))
        if outcome.before is None:
            return pb.ApplyResponse.CREATED
        is_same = outcome.revision is None
        return pb.ApplyResponse.UNCHANGED if is_same else pb.ApplyResponse.CONFIGURED

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> Any:  # noqa: N802
        try:
            document = _document(request.json)
            if request.dry_run:
                return pb.ApplyResponse(result=self._would_apply(parse_predictor(document)))
            return pb.ApplyResponse(result=await self.apply(document))
        except MeshError as error:
            await refuse(error, context)

    async def Get(self, request: pb.GetRequest, context: Context) -> Any:  # noqa: N802
        text = self._text(PredictorName(request.name))
        if not text:
            await refuse(ModelNotFound(request.name), context)
        return pb.GetResponse(json=text)

    async def List(self, request: pb.ListRequest, context: Context) -> Any:  # noqa: N802
        names = sorted(self._node.view.predictors)
        return pb.ListResponse(json=[self._text(name) for name in names])

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> Any:  # noqa: N802
        try:
            name = PredictorName(request.name)
            shown = describe(self._node, name, self._endpoints, now=wall_s())
            return pb.DescribeResponse(json=json.dumps(shown))
        except MeshError as error:
            await refuse(error, context)

    async def Delete(self, request: pb.DeleteRequest, context: Context) -> Any:  # noqa: N802
        try:
            outcome = await self._step(PredictorName(request.name), Removed())
        except MeshError as error:
            await refuse(error, context)
        if outcome.before is None:
            await refuse(ModelNotFound(request.name), context)
        return pb.DeleteResponse()

    async def Watch(  # noqa: N802
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchEvent]:
        changed: dict[str, None] = dict.fromkeys(sorted(self._node.view.predictors))
        wake = asyncio.Event()

        def listen(names: frozenset[PredictorName]) -> None:
            changed.update(dict.fromkeys(sorted(names)))
            wake.set()

        self._node.listeners.add(listen)
        try:
            while True:
                wake.clear()
                while changed:
                    name = next(iter(changed))
                    del changed[name]
                    if request.name in ("", name):
                        yield self._event(PredictorName(name))
                await wake.wait()
        finally:
            self._node.listeners.discard(listen)

    async def _step(self, name: PredictorName, event: Event) -> Outcome:
        outcome = await advance(self._registry, name, event, wall_s)
        if outcome.revision is not None:
            await self._node.follower.caught_up(outcome.revision)
        for effect in outcome.effects:
            if isinstance(effect, Retry):
                self._node.forgive(effect.model)
        return outcome

    def _would_apply(self, spec: PredictorSpec) -> pb.ApplyResponse.Result:
        """What applying it would come to, as this node sees the store."""
        before = self._node.view.predictors.get(spec.name)
        after, _ = step(before, Applied(spec), now=wall_s())
        if before is None:
            return pb.ApplyResponse.CREATED
        return pb.ApplyResponse.UNCHANGED if after == before else pb.ApplyResponse.CONFIGURED

    def _event(self, name: PredictorName) -> pb.WatchEvent:
        shown = progress(self._node, name)
        return pb.WatchEvent(name=name, json=self._text(name), progress=shown)

    def _text(self, name: PredictorName) -> str:
        """The object as JSON; empty where there is none."""
        view = self._node.view
        predictor = view.predictors.get(name)
        if predictor is None:
            return ""
        status = predictor_status(predictor, view, now=wall_s())
        return json.dumps(resources.predictor_object(predictor, status, self._endpoints))


def _document(text: str) -> object:
    """The one document of a request; raises InvalidRequest."""
    documents = load_documents(text)
    if len(documents) != 1:
        raise InvalidRequest("json", f"must be one Predictor, not {len(documents)} documents")
    return documents[0]
