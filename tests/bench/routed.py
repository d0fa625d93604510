"""A real node in its own process: memory registry, and a runtime whose loads only wait.

`python -m tests.bench.routed UPSTREAM --predictors 9 --room 3 --load-ms 50` prints a line of JSON
for each load, and one with its address and the backing model of each Predictor (`p0`, `p1`, …) once
as many as fit are loaded. Its runtime has room for so many models: the others wait for a request.
"""

import argparse
import asyncio
import json
import time
from dataclasses import dataclass, fields
from typing import Any

import uvloop

from mesh.agent.holdings import Identity
from mesh.core.ids import ModelId, NodeId
from mesh.core.records import BackingModel
from mesh.registry.memory import MemoryRegistry
from mesh.runtime.port import LoadedModel
from router.node import Doors, running_node
from tests.support.builders import RUNTIME, document
from tests.support.fake_runtime import MB, FakeRuntime

ANY_PORT = "127.0.0.1:0"


@dataclass
class WaitingRuntime(FakeRuntime):
    """Its loads take `load_s`, and say on standard output how long they really took."""

    load_s: float = 0.0

    async def load(self, model: BackingModel, *, timeout_s: float) -> LoadedModel:
        started = time.perf_counter()
        await asyncio.sleep(self.load_s)
        loaded = await super().load(model, timeout_s=timeout_s)
        say({"loaded": model.id, "seconds": time.perf_counter() - started})
        return loaded


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


def predictor(name: str) -> dict[str, object]:
    return {
        "apiVersion": "wmlserving.ai.ibm.com/v1",
        "kind": "Predictor",
        "metadata": {"name": name},
        "spec": document(path=name),
    }


async def serve(upstream: str, predictors: int, room: int, load_s: float) -> None:
    runtime = WaitingRuntime(address=upstream, capacity_bytes=room * MB, load_s=load_s)
    identity = Identity(NodeId("bench"), RUNTIME)
    ports: Any = {one.name: ANY_PORT for one in fields(Doors) if isinstance(one.default, str)}
    doors = Doors(**ports)
    async with running_node(identity, MemoryRegistry(), runtime, doors) as running:
        models: dict[str, ModelId] = {}
        for number in range(predictors):
            name = f"p{number}"
            await running.management.apply(predictor(name))
            models[name] = next(
                model.id for model in running.node.view.models.values() if model.predictor == name
            )
        while len(running.node.routes) < min(room, predictors):  # noqa: ASYNC110 - not measured
            await asyncio.sleep(0.01)
        say({"address": f"127.0.0.1:{running.port}", "models": models})
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream")
    parser.add_argument("--predictors", type=int, default=2)
    parser.add_argument("--room", type=int, default=2)
    parser.add_argument("--load-ms", type=float, default=0.0)
    given = parser.parse_args()
    uvloop.run(serve(given.upstream, given.predictors, given.room, given.load_ms / 1000))
