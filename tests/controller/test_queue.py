"""Work by key: one at a time, again when it changed meanwhile, later when it failed."""

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from mesh.controller.queue import LONGEST_S, Refused, WorkQueue
from tests.support.virtual_time import loop_time_s


@asynccontextmanager
async def working(work, **fields):
    queue = WorkQueue("tests", work, **fields)
    running = asyncio.get_running_loop().create_task(queue.run())
    yield queue
    running.cancel()
    await asyncio.wait([running])


async def test_key_is_worked_on_once_for_many_events_and_again_for_one_that_comes_meanwhile():
    begun = []

    async def work(key: str) -> None:
        begun.append((key, loop_time_s()))
        await asyncio.sleep(1)

    async with working(work) as queue:
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(0.5)
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(5)
        assert begun == [("a", 0.0), ("a", 1.0)]
        assert queue.is_idle


async def test_so_many_keys_at_once_and_no_more():
    busy = peak = 0

    async def work(key: str) -> None:
        nonlocal busy, peak
        busy += 1
        peak = max(peak, busy)
        await asyncio.sleep(1)
        busy -= 1

    async with working(work, at_once=3) as queue:
        for number in range(9):
            queue.add(str(number))
        await asyncio.sleep(2.5)
        assert queue.done == 6
        await asyncio.sleep(2.5)
        assert (peak, queue.done) == (3, 9)


@pytest.mark.parametrize("error", [Refused("not now"), ValueError("a defect")])
async def test_failure_is_tried_again_later_each_time_and_hurts_nobody_else(error):
    tried, other = [], []

    async def work(key: str) -> None:
        if key == "other":
            other.append(loop_time_s())
            return
        tried.append(loop_time_s())
        raise error

    async with working(work) as queue:
        queue.add("bad")
        queue.add("other")
        await asyncio.sleep(1000)
    pauses = [later - sooner for sooner, later in pairwise(tried)]
    assert pauses[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert pauses[-1] == pytest.approx(LONGEST_S)
    assert len(other) == 1
    assert queue.failed == len(tried)


async def test_success_forgets_the_failures_and_a_change_does_not_wait():
    tried = []

    async def work(key: str) -> None:
        tried.append(loop_time_s())
        if len(tried) < 6:
            raise Refused("not now")

    async with working(work) as queue:
        queue.add("a")
        await asyncio.sleep(5)
        count = len(tried)
        queue.add("a")
        await asyncio.sleep(0.01)
        assert len(tried) == count + 1


async def test_work_says_when_it_is_due_again_and_the_earlier_of_two_times_counts():
    done = []

    async def work(key: str) -> float | None:
        done.append(loop_time_s())
        return 10.0 if len(done) == 1 else None

    async with working(work) as queue:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add_after("a", 30)
        queue.add_after("a", 4)
        await asyncio.sleep(60)
    assert done == pytest.approx([0.0, 5.0])
