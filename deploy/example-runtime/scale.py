"""The smallest runtime of one's own: a model multiplies by the number that its path is.

    python deploy/example-runtime/scale.py --port 8085

It serves mmesh.ModelRuntime, by which a node loads and unloads models, and KServe's ModelInfer, by
which clients reach them, on one port. A real one pulls files: `modelKey` says with which storage
key (docs/custom-runtimes.md). The stubs are those that grpcio-tools makes of the files in proto/.
"""

import argparse
import asyncio
import signal
from typing import Any

import grpc.aio

from mesh.wire.pb import kfs_inference_v2_pb2 as kfs
from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from mesh.wire.pb import model_runtime_pb2 as spi
from mesh.wire.pb import model_runtime_pb2_grpc as spi_grpc

MODEL_BYTES = 1_000_000
CAPACITY_BYTES = 10 * MODEL_BYTES


class Runtime(spi_grpc.ModelRuntimeServicer):
    """Which models are there; `models` has the factor of each, by its id."""

    def __init__(self, models: dict[str, float]) -> None:
        self._models = models

    async def runtimeStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        # Asked until it says READY: a node begins, and knows nothing of what an earlier one left.
        self._models.clear()
        return spi.RuntimeStatusResponse(
            status=spi.RuntimeStatusResponse.READY,
            capacityInBytes=CAPACITY_BYTES,
            maxLoadingConcurrency=2,
            modelLoadingTimeoutMs=30_000,
            defaultModelSizeInBytes=MODEL_BYTES,
        )

    async def loadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        try:
            self._models[request.modelId] = float(request.modelPath)
        except ValueError:
            # Nothing was taken: with another code the node would have it unloaded as well.
            words = f"path: must be a number, not {request.modelPath!r}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        return spi.LoadModelResponse(sizeInBytes=MODEL_BYTES)

    async def unloadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._models.pop(request.modelId, None)  # one that is not there is unloaded
        return spi.UnloadModelResponse()


class Inference(kfs_grpc.GRPCInferenceServiceServicer):
    """Answers under the backing model's id, which the node has put in the Predictor's place."""

    def __init__(self, models: dict[str, float]) -> None:
        self._models = models

    async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        factor = self._models.get(request.model_name)
        if factor is None:
            words = f"Model {request.model_name} not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, words)
        answer = kfs.ModelInferResponse(model_name=request.model_name, id=request.id)
        for tensor in request.inputs:
            scaled = answer.outputs.add(name=tensor.name, datatype="FP32", shape=tensor.shape)
            numbers = tensor.contents.fp32_contents
            scaled.contents.fp32_contents.extend(factor * number for number in numbers)
        return answer


async def serve(port: int) -> None:
    models: dict[str, float] = {}
    server = grpc.aio.server()
    spi_grpc.add_ModelRuntimeServicer_to_server(Runtime(models), server)
    kfs_grpc.add_GRPCInferenceServiceServicer_to_server(Inference(models), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    # The first process of a container is not ended by a signal that it does not handle.
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(grace=5)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8085)
    asyncio.run(serve(parser.parse_args().port))
