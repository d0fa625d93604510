"""When a runtime that is connected counts as one that hangs."""

import asyncio

from mesh.runtime.liveness import EVERY_S, Liveness, Silence
from tests.support.virtual_time import loop_time_s


class Hangs:
    """Answers at once until `from_s`, and again from `to_s` on."""

    def __init__(self, from_s: float, to_s: float = 1e9) -> None:
        self.from_s, self.to_s = from_s, to_s
        self.asked = 0

    async def __call__(self, timeout_s: float) -> None:
        self.asked += 1
        if self.from_s <= loop_time_s() < self.to_s:
            await asyncio.sleep(min(timeout_s, self.to_s - loop_time_s()))
            if loop_time_s() < self.to_s:
                raise Silence


async def silent_after_s(server: Hangs, *, silence_s: float = 30.0, within_s: float = 1000.0):
    try:
        async with asyncio.timeout(within_s):
            await Liveness(server, silence_s).until_silent()
    except TimeoutError:
        return None
    return loop_time_s()


async def test_runtime_that_answers_is_asked_every_few_seconds():
    server = Hangs(from_s=1e9)
    assert await silent_after_s(server, within_s=100.0) is None
    assert server.asked == 100 / EVERY_S


async def test_runtime_that_hangs_is_silent_after_the_bound():
    silent_s = await silent_after_s(Hangs(from_s=50.5))
    assert silent_s is not None
    assert 80.5 <= silent_s <= 80.5 + EVERY_S


async def test_runtime_that_answers_late_is_not_silent():
    assert await silent_after_s(Hangs(from_s=50.0, to_s=79.0), within_s=200.0) is None


async def test_runtime_is_not_asked_without_a_bound():
    server = Hangs(from_s=0.0)
    assert await silent_after_s(server, silence_s=0.0) is None
    assert server.asked == 0


async def test_silence_in_which_a_load_was_under_way_does_not_count():
    liveness = Liveness(Hangs(from_s=0.0), 30.0)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(liveness.until_silent())
        with liveness.loading():
            await asyncio.sleep(100)
        assert not watch.done()
    # Asked at 0, 35, 70 and, for the first time after the load, at 105 seconds.
    assert loop_time_s() == 135.0


async def test_load_that_began_and_ended_in_a_silence_excuses_it():
    liveness = Liveness(Hangs(from_s=0.0), 30.0)
    async with asyncio.TaskGroup() as group:
        group.create_task(liveness.until_silent())
        await asyncio.sleep(10)
        with liveness.loading():
            await asyncio.sleep(1)
    assert loop_time_s() == 65.0
