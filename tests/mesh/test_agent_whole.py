"""The whole node under traffic in virtual time: nothing is lost, and the accounts are exact."""

import asyncio
import gc
import random
import tracemalloc

import pytest

from mesh.core.errors import MeshError, ModelLoadFailed, ModelNotFound, Unavailable
from mesh.registry.memory import MemoryRegistry
from tests.support.engine import Engine, engine, until
from tests.support.fake_runtime import MB, FakeRuntime
from tests.support.virtual_time import loop_time_s

PREDICTORS = 1_000
ROOM_FOR = 50


class SlowRuntime(FakeRuntime):
    """Loads take 0.05 to 0.5 s and unloads 0.02 s, of the loop's time."""

    def __init__(self, seed: int, **options) -> None:
        super().__init__(**options)
        self.random = random.Random(seed)

    async def load(self, model, *, timeout_s):
        await asyncio.sleep(self.random.uniform(0.05, 0.5))
        return await super().load(model, timeout_s=timeout_s)

    async def unload(self, model):
        await asyncio.sleep(0.02)
        await super().unload(model)


async def use(w: Engine, name: str, seconds: float) -> None:
    """One request: resolved as the router does, then in flight for a while."""
    if route := w.node.routes.get(name):
        copy = route[0]
        copy.enter(w.node.monotonic())
    else:
        copy = await w.node.resolve(name)
    try:
        await asyncio.sleep(seconds)
        assert copy.id in w.runtime.loaded, "a copy was unloaded under a request"
    finally:
        copy.leave()


def check_accounts(w: Engine) -> None:
    """The cache's books, the copies, the store's view and the runtime say the same."""
    cache = w.node.holdings.room.cache
    assert w.node.holdings.room.loading == 0
    assert {entry.model: entry.size_bytes for entry in cache} == w.runtime.loaded
    assert cache.used_bytes == sum(w.runtime.loaded.values())
    assert {copy.id for copy in w.node.holdings if copy.is_loaded} == set(w.runtime.loaded)
    assert all(copy.in_flight == copy.pins == 0 for copy in w.node.holdings)
    assert all(entry.pins == 0 for entry in cache)


@pytest.mark.timeout(120)
async def test_an_hour_of_zipf_traffic_over_a_thousand_predictors_loses_nothing():
    runtime = SlowRuntime(7, capacity_bytes=ROOM_FOR * MB, default_size_bytes=MB)
    registry = MemoryRegistry(clock=loop_time_s, history=1_000)
    rng = random.Random(7)
    weights = [1 / (rank + 1) for rank in range(PREDICTORS)]
    async with engine(runtime, registry=registry) as w:
        for number in range(PREDICTORS):
            await w.apply(f"p{number}", f"path-{number}")

        async def client() -> None:
            for number in rng.choices(range(PREDICTORS), weights, k=300):
                await asyncio.sleep(rng.expovariate(1 / 6.0))
                await use(w, f"p{number}", rng.uniform(0.001, 0.05))

        async def half_an_hour() -> int:
            """300 requests each of 10 clients, 6 s apart; the bytes that are held afterwards."""
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(client())
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        before_bytes = await half_an_hour()
        after_bytes = await half_an_hour()
        tracemalloc.stop()
        await w.settle()
        check_accounts(w)
        assert runtime.peak_bytes <= ROOM_FOR * MB
        assert len(runtime.loads) - len(runtime.unloads) == len(runtime.loaded) <= ROOM_FOR
        # What grows are the names that are used for the first time: routes, records, histories.
        assert after_bytes - before_bytes < MB / 2


class Chaos:
    """Random changes, faults and requests against one node; the same for the same seed."""

    def __init__(self, w: Engine, runtime: SlowRuntime, seed: int) -> None:
        self.w = w
        self.runtime = runtime
        self.rng = random.Random(seed)
        self.alive: set[str] = set()
        self.unexpected: list[BaseException] = []

    async def request(self) -> None:
        try:
            async with asyncio.timeout(60):
                copy = await self.w.node.resolve(self._name())
        except (ModelNotFound, ModelLoadFailed, Unavailable):
            return
        except (MeshError, TimeoutError) as error:
            self.unexpected.append(error)
            return
        await asyncio.sleep(self.rng.uniform(0.0, 0.2))
        copy.leave()

    async def change(self) -> None:
        name, path = self._name(), f"path-{self.rng.randrange(4)}"
        match self.rng.randrange(10):
            case 0 | 1 | 2 | 3:
                await self.w.apply(name, path)
                self.alive.add(name)
            case 4:
                await self.w.delete(name)
                self.alive.discard(name)
            case 5:
                if self.runtime.failures.pop(path, None) is None:
                    self.runtime.failures[path] = "it is broken"
            case 6:
                self.runtime.die()
                await self._pause()
                self.runtime.is_up = True
            case _:
                await self._pause()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(150):
                await self.change()
                for _ in range(self.rng.randrange(4)):
                    group.create_task(self.request())

    def mend(self) -> None:
        self.runtime.failures.clear()
        for name in sorted(self.alive):
            predictor = self.w.predictor(name)
            self.w.node.forgive(predictor.target)
            self.w.node.forgive(predictor.active)

    def rests(self) -> bool:
        statuses = [self.w.status(name) for name in self.alive]
        return all(status.transition == "UpToDate" for status in statuses)

    def _name(self) -> str:
        return f"p{self.rng.randrange(8)}"

    async def _pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 1))


@pytest.mark.parametrize("seed", range(12))
async def test_any_order_of_changes_faults_and_requests_ends_in_order(seed: int):
    runtime = SlowRuntime(seed, capacity_bytes=4 * MB)
    async with engine(runtime) as w:
        chaos = Chaos(w, runtime, seed)
        await chaos.run()
        chaos.mend()
        await until(chaos.rests, 120)
        await w.settle()
        assert chaos.unexpected == []
        check_accounts(w)
        for name in sorted(chaos.alive):
            assert await w.ask(name) == w.predictor(name).target
        assert set(w.node.view.predictors) == chaos.alive
        assert {model.predictor for model in w.node.view.models.values()} == chaos.alive
