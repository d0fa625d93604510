"""Requests to a Predictor from inside of a cluster, 50 a second, for as long as a block lasts.

`python -m tests.support.kube_load HOST:PORT PREDICTOR CONNECTIONS` asks until its input ends, and
prints JSON: how many were asked, and what those that failed were told. No request is sent again.
"""

import asyncio
import itertools
import json
import subprocess
import sys
from contextlib import AsyncExitStack

import grpc
import grpc.aio

from mesh.wire.pb import kfs_inference_v2_pb2_grpc as kfs_grpc
from tests.support.kube_installation import NAME, Namespace
from tests.support.stand import mnist_request

EVERY_S = 1 / 50
DEADLINE_S = 60
# Channels to the same target share a connection otherwise.
APART = (("grpc.use_local_subchannel_pool", 1),)


class Load:
    """To the Service, or to one pod of it; `connections` are spread over its pods by chance."""

    def __init__(self, namespace: Namespace, host: str = "", connections: int = 1) -> None:
        program = (sys.executable, "-m", "tests.support.kube_load")
        target = f"{host or namespace.address()}:8033"
        self._process = subprocess.Popen(
            namespace.cluster.command(*program, target, NAME, str(connections)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.asked = 0
        self.failures: list[str] = []

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        told = json.loads(self._process.communicate(timeout=90)[0])
        self.asked, self.failures = told["asked"], told["failures"]


async def ask_until_told(target: str, name: str, connections: int) -> dict[str, object]:
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    count = 0
    failures: list[str] = []

    async def ask(stub: kfs_grpc.GRPCInferenceServiceStub) -> None:
        try:
            await stub.ModelInfer(mnist_request(name), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            failures.append(f"{error.code().name}: {error.details()}")

    async with AsyncExitStack() as opened, asyncio.TaskGroup() as tasks:
        stubs = []
        for _ in range(connections):
            channel = grpc.aio.insecure_channel(target, options=APART)
            stubs.append(kfs_grpc.GRPCInferenceServiceStub(channel))
            opened.push_async_callback(channel.close)
        for stub in itertools.cycle(stubs):
            if ended.done():
                break
            tasks.create_task(ask(stub))
            count += 1
            await asyncio.sleep(EVERY_S)
    return {"asked": count, "failures": failures}


if __name__ == "__main__":
    target, name, connections = sys.argv[1:]
    print(json.dumps(asyncio.run(ask_until_told(target, name, int(connections)))))
