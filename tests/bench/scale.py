"""Nodes over very many Predictors in one etcd: `make bench-scale`.

Measures a node's start until it is ready, what it holds in memory for each Predictor (with its
model) over what it holds for none, and the time from the change of a Predictor, as its owner sends
it, until every node shows it. The aims are printed beside; nothing is asserted.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.core.ids import PredictorName, StorageKey, canonical_spec, model_id
from mesh.core.records import BackingModel, Predictor
from mesh.core.spec import ModelSource, ModelType
from mesh.registry.etcd import EtcdRegistry
from mesh.registry.etcd_settings import EtcdSettings
from mesh.registry.port import Put
from mesh.wire import records
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.mesh_stand import STORAGE_KEY, MeshNode, MeshStand, mesh_stand

PREDICTORS = 100_000
CHANGES = 300
NODES = 3
# Two records a Predictor, and 128 operations at most in a transaction.
A_COMMIT = 60
AT_ONCE = 8
START_S = 300.0
READY_AIM_S = 20.0
MEMORY_AIM_BYTES = 1024
CHANGE_AIM_S = 0.1
# A stand's first node is ready and at rest by then.
REST_S = 3.0


def spec_of(number: int, version: int = 0) -> dict[str, object]:
    return {
        "modelType": {"name": "sklearn"},
        "path": f"models/{number}/version={version}/model.joblib",
        "storage": {"s3": {"secretKey": STORAGE_KEY}},
    }


def pair(number: int) -> tuple[Put, Put]:
    """A Predictor that was served once and is loaded nowhere, and its model."""
    name = PredictorName(f"predictor-{number:06}")
    spec = spec_of(number)
    canonical = canonical_spec(spec)
    model = model_id(name, spec)
    path = str(spec["path"])
    source = ModelSource(ModelType("sklearn"), path, StorageKey(STORAGE_KEY))
    predictor = Predictor(name, canonical, model, model, True, 1_700_000_000.0, 1)
    backing = BackingModel(model, name, canonical, source)
    return (
        Put(records.predictor_key(name), records.encode(predictor)),
        Put(records.model_key(model), records.encode(backing)),
    )


async def fill(settings: EtcdSettings, count: int) -> None:
    registry = await EtcdRegistry.connect(settings)
    batches: Iterator[range] = iter(
        [range(at, min(at + A_COMMIT, count)) for at in range(0, count, A_COMMIT)]
    )

    async def write() -> None:
        for batch in batches:
            await registry.commit([op for number in batch for op in pair(number)])

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(write())
    finally:
        await registry.close()


async def ready_s(node: MeshNode) -> float:
    """Seconds from now until the node is ready; it has just been started."""
    started_s = time.monotonic()
    await node.until_ready(START_S)
    return time.monotonic() - started_s


async def changes_s(stand: MeshStand, count: int, changes: int) -> list[float]:
    """For each change, seconds until the last node shows it."""
    took = []
    for number in range(changes):
        chosen = number * (count // changes)
        name = f"predictor-{chosen:06}"
        async with watching(stand, name) as seen:
            begun_s = time.monotonic()
            await stand.apply(name, str(spec_of(chosen, version=1)["path"]))
            await seen.wait()
            took.append(time.monotonic() - begun_s)
    return took


@asynccontextmanager
async def watching(stand: MeshStand, name: str) -> AsyncIterator[asyncio.Event]:
    """The event is set once every node shows another spec than at first."""
    seen = asyncio.Event()
    left = set(range(len(stand.nodes)))
    begun = asyncio.Semaphore(0)

    async def watch(index: int, node: MeshNode) -> None:
        request = pb.ReadRequest(kind=pb.PREDICTOR, name=name, follow=True)
        first = None
        call = node.manage.Read(request)
        async for event in call:
            spec = json.loads(event.json)["spec"]
            if first is None:
                first = spec
                begun.release()
            if spec != first:
                left.discard(index)
                break
        call.cancel()
        if not left:
            seen.set()

    async with asyncio.TaskGroup() as group:
        for index, node in enumerate(stand.nodes):
            group.create_task(watch(index, node))
        for _ in stand.nodes:
            await begun.acquire()
        yield seen


async def measure(count: int, changes: int, folder: Path) -> None:
    async with mesh_stand(folder, nodes=1) as stand:
        base = stand.nodes[0]
        await asyncio.sleep(REST_S)
        base_bytes = base.memory_bytes()
        say("a node over nothing", f"{base_bytes / 1e6:.0f} MB")
        base.terminate()
        await base.until_ended()
        await base.close()
        stand.nodes.clear()
        started_s = time.monotonic()
        await fill(EtcdSettings.load(str(stand.store)), count)
        say(f"{count} Predictors written", f"{time.monotonic() - started_s:.1f} s")
        for _ in range(NODES):
            node = stand.add()
            took_s = await ready_s(node)
            say("a node's start until ready", f"{took_s:.1f} s", f"< {READY_AIM_S:.0f} s")
        await stand.until_known()
        await asyncio.sleep(REST_S)
        for node in stand.nodes:
            each = (node.memory_bytes() - base_bytes) / count
            all_of_it = f"{each:.0f} B a Predictor, {node.memory_bytes() / 1e6:.0f} MB in all"
            say("its memory", all_of_it, f"< {MEMORY_AIM_BYTES} B")
        took = sorted(await changes_s(stand, count, changes))
        p50_s, p99_s = took[len(took) // 2], took[int(len(took) * 0.99)]
        shown = f"p50 {p50_s * 1e3:.0f} ms, p99 {p99_s * 1e3:.0f} ms, longest {took[-1] * 1e3:.0f}"
        say(
            f"a change until all {NODES} nodes show it", shown, f"p99 < {CHANGE_AIM_S * 1e3:.0f} ms"
        )


def say(what: str, figure: str, aim: str = "") -> None:
    print(f"{what:<36} {figure:<44} {aim and f'aim {aim}'}".rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--predictors", type=int, default=PREDICTORS)
    parser.add_argument("--changes", type=int, default=CHANGES)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        asyncio.run(measure(told.predictors, told.changes, Path(folder)))


if __name__ == "__main__":
    main()
