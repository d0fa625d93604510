"""Requests to a Predictor from inside of a cluster, 50 a second, until the input ends.

`python -m tests.support.kube_load HOST:PORT PREDICTOR` prints JSON: how many were asked, and what
those that failed were told. No request is sent again.
"""

import asyncio
import json
import sys

import grpc
import grpc.aio

from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.support.stand import mnist_request

EVERY_S = 1 / 50
DEADLINE_S = 60


async def ask_until_told(target: str, name: str) -> dict[str, object]:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    count = 0
    failures: list[str] = []

    async def ask() -> None:
        try:
            await stub.ModelInfer(mnist_request(name), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")

    async with grpc.aio.insecure_channel(target) as channel:
        stub = kfs_grpc.GRPCInferenceServiceStub(channel)
        async with asyncio.TaskGroup() as tasks:
            while not ended.done():
                tasks.create_task(ask())
                count += 1
                await asyncio.sleep(EVERY_S)
    return {"asked": count, "failures": failures}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask_until_told(*sys.argv[1:]))))
