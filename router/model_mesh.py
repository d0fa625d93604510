"""`mmesh.ModelMesh`, the management API of the peers: models by id, and names that point at them.

A vmodel is a Predictor. What Predictors do by their specs and what is done here meet in
`core.transition`, so that either may follow the other on one name.
"""

import asyncio
from typing import Any

import grpc.aio

from mesh.agent.engine import Node
from mesh.agent.models import find, register, reject_other, unregister
from mesh.core.errors import InvalidRequest, NoSuchResource
from mesh.core.ids import ModelId, PredictorName
from mesh.core.records import BackingModel, CopyState
from mesh.core.references import NOBODY
from mesh.core.transition import Removed, Retargeted
from mesh.ops.clock import wall_s
from mesh.wire.model_info import read_info, spec_of
from mesh.wire.pb import model_mesh_pb2 as pb
from mesh.wire.pb import model_mesh_pb2_grpc as pb_grpc
from router.loads import Loads, until
from router.model_status import is_settled, model_status, vmodel_status
from router.refusal import Context, refusing
from router.steps import Steps

# How long a call with `sync` waits at most, where its caller has no deadline.
SYNC_LIMIT_S = 240.0
MS_PER_S = 1_000


class ModelMesh(pb_grpc.ModelMeshServicer):
    """The calls of model_mesh.proto."""

    def __init__(self, node: Node, steps: Steps, loads: Loads) -> None:
        self._node = node
        self._steps = steps
        self._loads = loads

    def register(self, server: grpc.aio.Server) -> None:
        """Adds these calls to a server that is for administrators and other nodes alone."""
        pb_grpc.add_ModelMeshServicer_to_server(self, server)

    @refusing
    async def registerModel(  # noqa: N802
        self, request: pb.RegisterModelRequest, context: Context
    ) -> pb.ModelStatusInfo:
        model = _model(_required(request, "modelId"), request.modelInfo)
        await self._steps.seen(await register(self._steps.registry, model))
        if request.loadNow:
            await self._load(model.id, request, context)
        return self._status(model.id)

    @refusing
    async def unregisterModel(  # noqa: N802
        self, request: pb.UnregisterModelRequest, context: Context
    ) -> pb.UnregisterModelResponse:
        model = ModelId(_required(request, "modelId"))
        await self._steps.seen(await unregister(self._steps.registry, model))
        return pb.UnregisterModelResponse()

    @refusing
    async def getModelStatus(  # noqa: N802
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.ModelStatusInfo:
        return self._status(ModelId(_required(request, "modelId")))

    @refusing
    async def ensureLoaded(  # noqa: N802
        self, request: pb.EnsureLoadedRequest, context: Context
    ) -> pb.ModelStatusInfo:
        model = ModelId(_required(request, "modelId"))
        if model not in self._node.view.models:
            raise NoSuchResource("model", model)
        await self._load(model, request, context)
        return self._status(model)

    @refusing
    async def setVModel(  # noqa: N802
        self, request: pb.SetVModelRequest, context: Context
    ) -> pb.VModelStatusInfo:
        name = PredictorName(_required(request, "vModelId"))
        target = ModelId(_required(request, "targetModelId"))
        event = Retargeted(
            name,
            await self._target(target, request),
            is_new=request.HasField("modelInfo"),
            owner=request.owner,
            expected=request.expectedTargetModelId,
            is_update=request.updateOnly,
            is_forced=request.force,
            is_idle=not request.loadNow and self._is_idle(name),
        )
        await self._steps.take(name, event)
        loading = (
            self._loads.begin(target) if request.loadNow and self._is_at(name, target) else None
        )
        if request.sync:
            await self._settle(name, target, loading, context)
        return vmodel_status(self._node.view, name, now=wall_s())

    @refusing
    async def deleteVModel(  # noqa: N802
        self, request: pb.DeleteVModelRequest, context: Context
    ) -> pb.DeleteVModelResponse:
        name = PredictorName(_required(request, "vModelId"))
        await self._steps.take(name, Removed(request.owner))
        return pb.DeleteVModelResponse()

    @refusing
    async def getVModelStatus(  # noqa: N802
        self, request: pb.GetVModelStatusRequest, context: Context
    ) -> pb.VModelStatusInfo:
        name = PredictorName(_required(request, "vModelId"))
        return vmodel_status(self._node.view, name, now=wall_s(), owner=request.owner)

    async def _target(self, target: ModelId, request: pb.SetVModelRequest) -> BackingModel:
        """The model to point at, as the request or else the store has it."""
        found = await find(self._steps.registry, target)
        if request.HasField("modelInfo"):
            model = _model(target, request.modelInfo, auto_delete=request.autoDeleteTargetModel)
            if found.model is not None:
                reject_other(model, found.model)
            return model
        if found.model is None:
            raise NoSuchResource("model", target)
        return found.model

    def _is_idle(self, name: PredictorName) -> bool:
        """Whether nothing of the active model is loaded, or about to be."""
        predictor = self._node.view.predictors.get(name)
        copies = () if predictor is None else self._node.view.copies(predictor.active).values()
        return not any(copy.state in (CopyState.LOADED, CopyState.LOADING) for copy in copies)

    def _is_at(self, name: PredictorName, target: ModelId) -> bool:
        predictor = self._node.view.predictors.get(name)
        return predictor is not None and predictor.active == target

    async def _load(
        self,
        model: ModelId,
        request: pb.RegisterModelRequest | pb.EnsureLoadedRequest,
        context: Context,
    ) -> None:
        loading = self._loads.begin(model, used_s=request.lastUsedTime / MS_PER_S)
        if request.sync:
            await asyncio.wait([loading], timeout=_limit_s(context))

    async def _settle(
        self,
        name: PredictorName,
        target: ModelId,
        loading: "asyncio.Task[None] | None",
        context: Context,
    ) -> None:
        """Waits for the end of the transition; where there is none, for that of the load."""
        view, limit_s = self._node.view, _limit_s(context)
        if loading is not None:
            await asyncio.wait([loading], timeout=limit_s)
            return
        about = (name, target)
        await until(
            self._node, about, lambda: is_settled(view, name, target, now=wall_s()), limit_s
        )

    def _status(self, model: ModelId) -> pb.ModelStatusInfo:
        return model_status(self._node.view, model, now=wall_s())


def _model(model: str, info: pb.ModelInfo, *, auto_delete: bool = False) -> BackingModel:
    """Raises InvalidRequest."""
    source = read_info(info.type, info.path, info.key)
    return BackingModel(ModelId(model), NOBODY, spec_of(source), source, auto_delete)


def _required(request: Any, field: str) -> str:
    """Raises InvalidRequest where the field is empty."""
    value = getattr(request, field)
    if not value:
        raise InvalidRequest(field, "required")
    return str(value)


def _limit_s(context: Context) -> float:
    left_s = context.time_remaining()
    return SYNC_LIMIT_S if left_s is None else float(left_s)
