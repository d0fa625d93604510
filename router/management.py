"""The management side of a node: Predictors, and what is to be seen and asked of the mesh.

It is never where inference is: who reaches this may change everything.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import grpc.aio

from mesh.agent.engine import Node
from mesh.core.errors import InvalidRequest, MeshError, ModelNotFound, NoSuchResource
from mesh.core.ids import ModelId, NodeId, PredictorName
from mesh.core.transition import Applied, Removed, step
from mesh.ops.clock import wall_s
from mesh.wire.documents import load_documents
from mesh.wire.manifests import parse_predictor
from mesh.wire.pb import wml_management_pb2 as pb
from mesh.wire.pb import wml_management_pb2_grpc as pb_grpc
from mesh.wire.resources import Endpoints
from router.administration import Administration
from router.description import describe, progress
from router.reading import read, show_predictor
from router.refusal import Context, refuse, refusing
from router.runtimes import set_runtimes
from router.steps import Steps
from router.usage import Usages

LISTED_AT_ONCE = 100


class Management(pb_grpc.ManagementServicer):
    """The calls of wml_management.proto, over the node's view and the store."""

    def __init__(
        self,
        node: Node,
        steps: Steps,
        administration: Administration,
        usages: Usages,
        endpoints: Endpoints,
    ) -> None:
        self._node = node
        self._steps = steps
        self._administration = administration
        self._usages = usages
        self._endpoints = endpoints

    def register(self, server: grpc.aio.Server) -> None:
        """Adds these calls to a server that is for administrators and other nodes alone."""
        pb_grpc.add_ManagementServicer_to_server(self, server)

    async def apply(self, document: object, owner: str = "") -> pb.ApplyResponse.Result:
        """Creates or changes a Predictor, and returns once this node acts on it."""
        spec = parse_predictor(document)
        outcome = await self._steps.take(spec.name, Applied(spec, owner))
        if outcome.before is None:
            return pb.ApplyResponse.CREATED
        is_same = outcome.revision is None
        return pb.ApplyResponse.UNCHANGED if is_same else pb.ApplyResponse.CONFIGURED

    @refusing
    async def Apply(self, request: pb.ApplyRequest, context: Context) -> pb.ApplyResponse:  # noqa: N802
        document = _document(request.json)
        if request.dry_run:
            spec = parse_predictor(document)
            return pb.ApplyResponse(result=self._would_apply(Applied(spec, request.owner)))
        return pb.ApplyResponse(result=await self.apply(document, request.owner))

    @refusing
    async def Get(self, request: pb.GetRequest, context: Context) -> pb.GetResponse:  # noqa: N802
        text = self._text(PredictorName(request.name))
        if not text:
            raise ModelNotFound(request.name)
        return pb.GetResponse(json=text)

    @refusing
    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:  # noqa: N802
        texts = []
        for number, name in enumerate(sorted(self._node.view.predictors)):
            if number % LISTED_AT_ONCE == 0:
                await asyncio.sleep(0)  # requests go on meanwhile
            texts.append(self._text(name))
        return pb.ListResponse(json=filter(None, texts))

    @refusing
    async def Describe(  # noqa: N802
        self, request: pb.DescribeRequest, context: Context
    ) -> pb.DescribeResponse:
        name = PredictorName(request.name)
        shown = describe(self._node, name, self._endpoints, now=wall_s())
        return pb.DescribeResponse(json=json.dumps(shown))

    @refusing
    async def Delete(self, request: pb.DeleteRequest, context: Context) -> pb.DeleteResponse:  # noqa: N802
        outcome = await self._steps.take(PredictorName(request.name), Removed(request.owner))
        if outcome.before is None or outcome.after is not None:
            raise ModelNotFound(request.name)
        return pb.DeleteResponse()

    @refusing
    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:  # noqa: N802
        return await self._administration.drain(
            NodeId(request.node), is_waiting=request.wait, is_passed_on=request.is_passed_on
        )

    @refusing
    async def ForgetFailure(  # noqa: N802
        self, request: pb.ForgetFailureRequest, context: Context
    ) -> pb.ForgetFailureResponse:
        models = self._models(request)
        node = NodeId(request.node) if request.node else None
        forgotten = await self._administration.forget(
            models, node, is_passed_on=request.is_passed_on
        )
        return pb.ForgetFailureResponse(nodes=forgotten.nodes, unreachable=forgotten.unreachable)

    @refusing
    async def SetRuntimes(  # noqa: N802
        self, request: pb.SetRuntimesRequest, context: Context
    ) -> pb.SetRuntimesResponse:
        await set_runtimes(request.json, self._steps)
        return pb.SetRuntimesResponse()

    @refusing
    async def Usage(self, request: pb.UsageRequest, context: Context) -> pb.UsageResponse:  # noqa: N802
        return await self._usages.answer(is_passed_on=request.is_passed_on)

    async def Read(  # noqa: N802
        self, request: pb.ReadRequest, context: Context
    ) -> AsyncIterator[pb.ReadEvent]:
        async def begun() -> None:
            await context.send_initial_metadata(())

        try:
            async for event in read(self._node, request, self._endpoints, begun):
                yield event
        except MeshError as error:
            await refuse(error, context)

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

    def _models(self, request: pb.ForgetFailureRequest) -> tuple[ModelId, ...]:
        if request.WhichOneof("of") == "predictor":
            return self._administration.models_of(PredictorName(request.predictor))
        model = ModelId(request.model)
        if model not in self._node.view.models:
            raise NoSuchResource("model", model)
        return (model,)

    def _would_apply(self, applied: Applied) -> pb.ApplyResponse.Result:
        """What applying it would come to, as this node sees the store."""
        before = self._node.view.predictors.get(applied.spec.name)
        after, _ = step(before, applied, now=wall_s())
        if before is None:
            return pb.ApplyResponse.CREATED
        return pb.ApplyResponse.UNCHANGED if after == before else pb.ApplyResponse.CONFIGURED

    def _event(self, name: PredictorName) -> pb.WatchEvent:
        shown = progress(self._node, name)
        return pb.WatchEvent(name=name, json=self._text(name), progress=shown)

    def _text(self, name: PredictorName) -> str:
        """The object as JSON; empty where there is none."""
        shown = show_predictor(self._node.view, name, self._endpoints)
        return "" if shown is None else json.dumps(shown)


def _document(text: str) -> object:
    """The one document of a request; raises InvalidRequest."""
    documents = load_documents(text)
    if len(documents) != 1:
        raise InvalidRequest("json", f"must be one Predictor, not {len(documents)} documents")
    return documents[0]
