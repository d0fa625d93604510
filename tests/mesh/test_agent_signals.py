"""Signals: who is woken, in which order, and that nothing is kept."""

import asyncio

from mesh.agent.signals import Signals


def begin(signals: Signals, name: str, order: list[str], who: str) -> asyncio.Task[None]:
    async def wait() -> None:
        await signals.wait(name)
        order.append(who)

    return asyncio.get_running_loop().create_task(wait())


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_notify_wakes_those_who_wait_for_the_name_and_no_others():
    signals, order = Signals(), []
    one, other = begin(signals, "a", order, "one"), begin(signals, "b", order, "other")
    await turns()
    signals.notify(["a", "c"])
    await one
    assert order == ["one"]
    signals.notify(["b"])
    await other


async def test_notify_wakes_names_in_its_order_and_each_in_the_order_of_arrival():
    signals, order = Signals(), []
    waiting = [begin(signals, name, order, f"{name}{n}") for n in range(5) for name in "ab"]
    await turns()
    signals.notify(["b", "a"])
    await asyncio.wait(waiting)
    assert order == ["b0", "b1", "b2", "b3", "b4", "a0", "a1", "a2", "a3", "a4"]


async def test_notify_before_the_wait_is_not_remembered():
    signals, order = Signals(), []
    signals.notify(["a"])
    waiting = begin(signals, "a", order, "one")
    await turns()
    assert not waiting.done()
    signals.notify(["a"])
    await waiting


async def test_wait_that_is_cancelled_leaves_nothing_behind():
    signals, order = Signals(), []
    waiting = [begin(signals, "a", order, str(n)) for n in range(2)]
    await turns()
    waiting[0].cancel()
    await turns()
    signals.notify(["a"])
    await waiting[1]
    assert order == ["1"]
    gone = begin(signals, "a", order, "gone")
    await turns()
    gone.cancel()
    await turns()
    assert signals._waiting == {}


async def test_wait_that_is_cancelled_as_it_is_woken_is_cancelled():
    signals, order = Signals(), []
    waiting = begin(signals, "a", order, "one")
    await turns()
    signals.notify(["a"])
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert signals._waiting == {}
