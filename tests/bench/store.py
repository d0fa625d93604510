"""What the store in etcd costs: a commit, the way of a change to a watcher, a listing.

`python -m tests.bench.store` starts an etcd of its own, without fsync.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from mesh.registry.etcd import EtcdRegistry
from mesh.registry.port import Put, Registry
from tests.support.etcd import running_etcd

COMMITS = 2_000
KEYS = 100_000
A_COMMIT = 100
# About what a Predictor's record takes.
VALUE = b"x" * 300


async def commits(registry: Registry) -> list[float]:
    """Seconds of each commit, one after the other."""
    took = []
    for number in range(COMMITS):
        began_s = time.perf_counter()
        await registry.commit([Put(f"commits/{number % 100}", VALUE)])
        took.append(time.perf_counter() - began_s)
    return took


async def delays(registry: Registry, watcher: Registry) -> list[float]:
    """Seconds from before a commit until another client has seen it."""
    snapshot = await watcher.list("delays/")
    took = []
    async with aclosing(watcher.watch("delays/", snapshot.revision)) as batches:
        for number in range(COMMITS // 10):
            began_s = time.perf_counter()
            await registry.commit([Put("delays/a", str(number).encode())])
            async for batch in batches:
                if batch.changes:
                    took.append(time.perf_counter() - began_s)
                    break
    return took


async def fill(registry: Registry) -> None:
    for begin in range(0, KEYS, A_COMMIT):
        await registry.commit(
            [Put(f"predictors/{number:07}", VALUE) for number in range(begin, begin + A_COMMIT)]
        )


def say(what: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    p99_ms = ordered[int(0.99 * len(ordered))] * 1000
    print(f"{what:<34} p50 {statistics.median(ordered) * 1000:6.2f} ms   p99 {p99_ms:6.2f} ms")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, running_etcd(Path(folder) / "etcd") as etcd:
        settings = etcd.settings()
        registry, watcher = [await EtcdRegistry.connect(settings) for _ in range(2)]
        say("commit of one key", await commits(registry))
        say("commit until another one sees it", await delays(registry, watcher))
        await fill(registry)
        began_s = time.perf_counter()
        found = await registry.list("predictors/")
        took_s = time.perf_counter() - began_s
        print(f"listing of {len(found.entries):,} keys                 {took_s:.2f} s")
        await registry.close()
        await watcher.close()


if __name__ == "__main__":
    asyncio.run(main())
