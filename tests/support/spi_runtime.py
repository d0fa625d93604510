"""A runtime process of ours: mmesh.ModelRuntime, inference, and a repository that tells the truth.

    python -m tests.support.spi_runtime --spi unix:/tmp/a.sock --data 127.0.0.10:8085

It stands in for an adapter with its model server where many are needed. What a model does is in its
path, `load=0.2,size=1000000,fail=no such file`: see `Traits`. It answers for no model that it was
not told to load, refuses a load for which it has no memory, and counts what no runtime should see
(`Counts`); `spi_runtime_client` reads and changes it while it runs. It does not imitate: files, or
what a model server costs.
"""

import argparse
import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import grpc
import grpc.aio

from mesh.wire.field_path import read_string
from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_repository_pb2 as repository
from mesh.wire.pb import model_repository_pb2_grpc as repository_grpc
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import model_runtime_pb2_grpc as spi_grpc
from mesh.wire.pb import wml_adapter_pb2 as events_pb
from mesh.wire.pb import wml_adapter_pb2_grpc as events_grpc

# Ours keeps what it loaded for as long as the same life of the node asks; others clear at each
# question.
OURS = "ours"
OTHERS = "others"
CONTROL = "wmlserving.test.Control"
KEEPALIVE = (("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_ping_strikes", 0))
METHODS = ("ModelInfer", "ModelMetadata")
# A service that is not KServe's, of which nobody has the types: the id is at field 1 of field 2.
FOREIGN = "wmlserving.test.Foreign"
FOREIGN_PATH = (2, 1)


@dataclass(frozen=True, slots=True)
class Traits:
    """How a model behaves. Seconds and bytes.

    `held` bytes are really allocated; `fail` is the reason why it does not load; `infer` is how
    long a request takes; `version` changes nothing, and makes another model of it.
    """

    load: float = 0.0
    unload: float = 0.0
    size: int = 1_000_000
    held: int = 0
    infer: float = 0.0
    fail: str = ""
    version: str = ""

    def read(self, path: str) -> "Traits":
        """These, but for what the path says."""
        given = dict(part.partition("=")[::2] for part in path.split(",") if "=" in part)
        types = {"load": float, "unload": float, "infer": float, "size": int, "held": int}
        known = {name: given[name] for name in asdict(self) if name in given}
        return replace(self, **{k: types.get(k, str)(v) for k, v in known.items()})


@dataclass
class Counts:
    """By model. `refused`: requests for a model that was not loaded; `torn`: in flight when it was
    unloaded; `without_room`: loads that were refused for want of memory."""

    loads: Counter[str] = field(default_factory=Counter)
    unloads: Counter[str] = field(default_factory=Counter)
    infers: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    torn: Counter[str] = field(default_factory=Counter)
    without_room: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    peak_loading: int = 0
    peak_in_flight: int = 0


@dataclass
class Held:
    """A model that is loaded."""

    traits: Traits
    memory: bytearray
    in_flight: int = 0


class Refused(Exception):
    """What a call ends with."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class Models:
    """What is loaded, and what is on its way. `failures`: a part of a path, and the reason."""

    def __init__(self, capacity_bytes: int, traits: Traits) -> None:
        self.capacity_bytes = capacity_bytes
        self.traits = traits
        self.failures: dict[str, str] = {}
        self.loaded: dict[str, Held] = {}
        self.counts = Counts()
        self._loading: dict[str, tuple[asyncio.Task[Any], int]] = {}

    @property
    def used_bytes(self) -> int:
        loading = sum(size for _, size in self._loading.values())
        return loading + sum(held.traits.size for held in self.loaded.values())

    def predicted_bytes(self, path: str) -> int:
        return self.traits.read(path).size

    async def load(self, model: str, path: str) -> int:
        """The bytes that it takes, once it is there. A caller that leaves undoes it."""
        while model in self._loading:
            await asyncio.wait([self._loading[model][0]])
        if model in self.loaded:
            return self.loaded[model].traits.size
        traits = self.traits.read(path)
        self.counts.loads[model] += 1
        if self.used_bytes + traits.size > self.capacity_bytes:
            self.counts.without_room[model] += 1
            raise Refused(grpc.StatusCode.INTERNAL, f"no memory for {model}")
        task = asyncio.get_running_loop().create_task(self._load(model, path, traits))
        self._loading[model] = (task, traits.size)
        self.counts.peak_loading = max(self.counts.peak_loading, len(self._loading))
        self.counts.peak_bytes = max(self.counts.peak_bytes, self.used_bytes)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Refused(grpc.StatusCode.ABORTED, f"{model} was unloaded") from None
            task.cancel()
            raise
        return traits.size

    async def _load(self, model: str, path: str, traits: Traits) -> None:
        try:
            await asyncio.sleep(traits.load)
            for part, reason in (*self.failures.items(), (path, traits.fail)):
                if reason and part in path:
                    raise Refused(grpc.StatusCode.INTERNAL, reason)
            self.loaded[model] = Held(traits, bytearray(traits.held))
        finally:
            del self._loading[model]

    async def unload(self, model: str) -> None:
        """Returns once nothing of it is left."""
        while model in self._loading:
            task, _ = self._loading[model]
            task.cancel()
            await asyncio.wait([task])
        held = self.loaded.get(model)
        if held is None:
            return
        await asyncio.sleep(held.traits.unload)
        if self.loaded.get(model) is held:
            del self.loaded[model]
            self.counts.unloads[model] += 1
            self.counts.torn[model] += held.in_flight

    async def clear(self) -> None:
        for model in [*self._loading, *self.loaded]:
            await self.unload(model)

    async def infer(self, model: str) -> None:
        held = self.loaded.get(model)
        if held is None:
            self.counts.refused[model] += 1
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Model {model} not found")
        self.counts.infers[model] += 1
        held.in_flight += 1
        self.counts.peak_in_flight = max(self.counts.peak_in_flight, held.in_flight)
        try:
            if held.traits.infer:
                await asyncio.sleep(held.traits.infer)
        finally:
            held.in_flight -= 1

    def loading(self) -> list[str]:
        return sorted(self._loading)


class ModelRuntime(spi_grpc.ModelRuntimeServicer):
    """The SPI over `models`, as an adapter of ours or as one of others'.

    `calls_at_once`: to one model; 0 is no limit. `is_any_allowed`: RPCs that it does not list.
    """

    def __init__(
        self,
        models: Models,
        kind: str,
        at_once: int,
        calls_at_once: int = 0,
        *,
        is_any_allowed: bool = False,
    ) -> None:
        self.is_up = True
        self.lives: list[str] = []
        self._models = models
        self._kind = kind
        self._at_once = at_once
        self._calls_at_once = calls_at_once
        self._is_any_allowed = is_any_allowed

    async def loadModel(self, request, context):
        try:
            size = await self._models.load(request.modelId, request.modelPath)
        except Refused as error:
            await context.abort(error.code, str(error))
        return spi.LoadModelResponse(sizeInBytes=size, maxConcurrency=self._calls_at_once)

    async def unloadModel(self, request, context):
        await self._models.unload(request.modelId)
        return spi.UnloadModelResponse()

    async def predictModelSize(self, request, context):
        size = self._models.predicted_bytes(request.modelPath)
        return spi.PredictModelSizeResponse(sizeInBytes=size)

    async def modelSize(self, request, context):
        held = self._models.loaded.get(request.modelId)
        if held is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.modelId} is not loaded")
        return spi.ModelSizeResponse(sizeInBytes=held.traits.size)

    async def runtimeStatus(self, request, context):
        node = str(dict(context.invocation_metadata() or ()).get("wml-node", ""))
        if self._kind == OURS:
            await context.send_initial_metadata((("wml-adapter", "1"),))
        if not self.is_up:
            return spi.RuntimeStatusResponse(status=spi.RuntimeStatusResponse.STARTING)
        if self._kind == OTHERS or not node or self.lives[-1:] != [node]:
            await self._models.clear()
            self.lives.append(node)
        info = spi.RuntimeStatusResponse.MethodInfo
        methods = {
            f"inference.GRPCInferenceService/{name}": info(idInjectionPath=(1,)) for name in METHODS
        }
        methods[f"{FOREIGN}/Predict"] = info(idInjectionPath=FOREIGN_PATH)
        return spi.RuntimeStatusResponse(
            status=spi.RuntimeStatusResponse.READY,
            capacityInBytes=self._models.capacity_bytes,
            maxLoadingConcurrency=self._at_once,
            modelLoadingTimeoutMs=90_000,
            defaultModelSizeInBytes=self._models.traits.size,
            limitModelConcurrency=self._calls_at_once > 0,
            methodInfos=methods,
            allowAnyMethod=self._is_any_allowed,
        )


class AdapterEvents(events_grpc.AdapterEventsServicer):
    """Nothing ever happens, but the stream tells a node that we live."""

    async def Watch(self, request, context) -> AsyncIterator[events_pb.Event]:
        await context.send_initial_metadata((("wml-adapter", "1"),))
        await asyncio.Event().wait()
        yield events_pb.Event()


class Inference(kfs_grpc.GRPCInferenceServiceServicer):
    """The answer names the model that was asked, in the message and by its output."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ServerLive(self, request, context):
        return kfs.ServerLiveResponse(live=True)

    async def ServerReady(self, request, context):
        return kfs.ServerReadyResponse(ready=True)

    async def ModelReady(self, request, context):
        return kfs.ModelReadyResponse(ready=request.name in self._models.loaded)

    async def ModelMetadata(self, request, context):
        await self._infer(request.name, context)
        return kfs.ModelMetadataResponse(name=request.name, platform="spi_runtime")

    async def ModelInfer(self, request, context):
        await self._infer(request.model_name, context)
        return kfs.ModelInferResponse(model_name=request.model_name, id=request.id)

    async def _infer(self, model: str, context: Any) -> None:
        try:
            await self._models.infer(model)
        except Refused as error:
            await context.abort(error.code, str(error))


class Repository(repository_grpc.ModelRepositoryServiceServicer):
    """What is really loaded."""

    def __init__(self, models: Models) -> None:
        self._models = models

    async def RepositoryIndex(self, request, context):
        answer = repository.RepositoryIndexResponse()
        for model in sorted(self._models.loaded):
            answer.models.add(name=model, state="READY")
        return answer


def foreign(models: Models) -> grpc.GenericRpcHandler:
    """Both answer with the request as it came; Predict has the id in it, Explain in metadata."""

    async def answer(model: str, request: bytes, context: Any) -> bytes:
        try:
            await models.infer(model)
        except Refused as error:
            await context.abort(error.code, str(error))
        return request

    async def predict(request: bytes, context: Any) -> bytes:
        return await answer(read_string(request, FOREIGN_PATH), request, context)

    async def explain(request: bytes, context: Any) -> bytes:
        model = str(dict(context.invocation_metadata() or ()).get("mm-model-id"))
        return await answer(model, request, context)

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(call)
        for name, call in (("Predict", predict), ("Explain", explain))
    }
    return grpc.method_handlers_generic_handler(FOREIGN, handlers)


def control(models: Models, runtime: ModelRuntime) -> grpc.GenericRpcHandler:
    """Read: all that it knows, as JSON. Change: a JSON object with what is to be other."""

    async def read(_request: bytes, _context: Any) -> bytes:
        known = {
            name: dict(value) for name, value in vars(models.counts).items() if "peak" not in name
        }
        known |= {name: value for name, value in vars(models.counts).items() if "peak" in name}
        known |= {
            "loaded": {name: held.traits.size for name, held in models.loaded.items()},
            "loading": models.loading(),
            "used_bytes": models.used_bytes,
            "capacity_bytes": models.capacity_bytes,
            "lives": runtime.lives,
        }
        return json.dumps(known).encode()

    async def change(request: bytes, _context: Any) -> bytes:
        told = json.loads(request)
        models.capacity_bytes = told.get("capacity_bytes", models.capacity_bytes)
        models.failures = told.get("failures", models.failures)
        models.traits = replace(models.traits, **told.get("traits", {}))
        runtime.is_up = told.get("is_up", runtime.is_up)
        for model in told.get("lose", ()):
            models.loaded.pop(model, None)
        return b"{}"

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(call)
        for name, call in (("Read", read), ("Change", change))
    }
    return grpc.method_handlers_generic_handler(CONTROL, handlers)


async def serve(
    spi_address: str, data_address: str, models: Models, runtime: ModelRuntime, kind: str
) -> None:
    """Until SIGTERM. Both may be one address."""
    servers = {
        address: grpc.aio.server(options=KEEPALIVE) for address in (spi_address, data_address)
    }
    spi_grpc.add_ModelRuntimeServicer_to_server(runtime, servers[spi_address])
    if kind == OURS:
        events_grpc.add_AdapterEventsServicer_to_server(AdapterEvents(), servers[spi_address])
    data = servers[data_address]
    kfs_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(models), data)
    repository_grpc.add_ModelRepositoryServiceServicer_to_server(Repository(models), data)
    data.add_generic_rpc_handlers((control(models, runtime), foreign(models)))
    for address, server in servers.items():
        server.add_insecure_port(address)
        await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print("ready", flush=True)
    await stop.wait()
    for server in servers.values():
        await server.stop(None)


def main() -> None:
    parser = argparse.ArgumentParser(prog="spi_runtime", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spi", required=True, help="a gRPC target: unix:/path or host:port")
    parser.add_argument("--data", required=True, help="host:port")
    parser.add_argument("--capacity", type=int, default=10_000_000, help="bytes for models")
    parser.add_argument("--traits", default="", help="of each model whose path does not say")
    parser.add_argument("--at-once", type=int, default=4, help="loads that it takes at once")
    parser.add_argument("--calls-at-once", type=int, default=0, help="to a model; 0: any number")
    parser.add_argument("--any-method", action="store_true", help="also what it does not list")
    parser.add_argument("--adapter", choices=(OURS, OTHERS), default=OURS)
    told = parser.parse_args()
    models = Models(told.capacity, Traits().read(told.traits))
    runtime = ModelRuntime(
        models, told.adapter, told.at_once, told.calls_at_once, is_any_allowed=told.any_method
    )
    asyncio.run(serve(told.spi, told.data, models, runtime, told.adapter))


if __name__ == "__main__":
    main()
