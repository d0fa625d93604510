"""One leads: by the Lease, and no two at a time."""

import asyncio

import pytest

from mesh.controller.leader import DURATION_S, GIVE_UP_S, RENEW_S, Election, LostLead
from tests.support.kube_memory import MemoryKube
from tests.support.virtual_time import CLOCK, loop_time_s


class MuteKube(MemoryKube):
    """`is_mute`: what is written is done, and nobody hears of it."""

    is_mute = False

    async def replace(self, obj: dict) -> dict:
        answer = await super().replace(obj)
        if self.is_mute:
            await asyncio.Event().wait()
        return answer


def election(kube: MemoryKube, name: str) -> Election:
    return Election(kube, "ns", name, CLOCK)


def begin(work) -> asyncio.Task:
    return asyncio.get_running_loop().create_task(work)


def holder(kube: MemoryKube) -> str:
    return kube.objects["Lease", "ns", "wmlserving-controller"]["spec"]["holderIdentity"]


async def test_first_leads_and_the_second_follows_when_it_resigns():
    kube, waited = MemoryKube(), []
    one, two = election(kube, "one"), election(kube, "two")
    await one.lead()
    keeping = begin(one.keep())
    second = begin(two.lead(waited.append))
    await asyncio.sleep(60)
    assert (holder(kube), second.done(), set(waited)) == ("one", False, {"one"})
    keeping.cancel()
    await one.resign()
    await asyncio.sleep(4)
    assert second.done()
    assert holder(kube) == "two"


async def test_leader_that_died_is_followed_once_its_lease_is_over():
    kube = MemoryKube()
    await election(kube, "one").lead()
    began_s = loop_time_s()
    await election(kube, "two").lead()
    assert DURATION_S < loop_time_s() - began_s < DURATION_S + 5
    spec = kube.objects["Lease", "ns", "wmlserving-controller"]["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("two", 2)


async def test_of_many_that_begin_at_once_one_leads():
    kube = MemoryKube()
    standing = [begin(election(kube, f"c{number}").lead()) for number in range(10)]
    await asyncio.sleep(1)
    assert sum(task.done() for task in standing) == 1
    for task in standing:
        task.cancel()
    await asyncio.wait(standing)


async def test_lead_that_cannot_be_renewed_is_given_up_before_another_one_can_have_it():
    kube = MemoryKube()
    one = election(kube, "one")
    await one.lead()
    keeping = begin(one.keep())
    await asyncio.sleep(10)
    kube.go()
    began_s = loop_time_s()
    with pytest.raises(LostLead):
        await keeping
    assert GIVE_UP_S < loop_time_s() - began_s + 3 < DURATION_S
    await one.resign()  # nothing to be done, and no error


async def test_lead_that_somebody_took_is_lost_at_once():
    kube = MemoryKube()
    one = election(kube, "one")
    await one.lead()
    keeping = begin(one.keep())
    await asyncio.sleep(0)
    lease = kube.objects["Lease", "ns", "wmlserving-controller"]
    kube.put({**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
    async with asyncio.timeout(RENEW_S + 1):
        with pytest.raises(LostLead):
            await keeping


async def test_lead_whose_renewal_gets_no_answer_is_given_up_before_another_one_can_have_it():
    kube = MuteKube()
    one = election(kube, "one")
    await one.lead()
    kube.is_mute = True
    began_s = loop_time_s()
    with pytest.raises(LostLead):
        await one.keep()
    assert GIVE_UP_S <= loop_time_s() - began_s < DURATION_S
    assert not one.is_sure


async def test_lead_is_given_back_though_its_last_renewal_was_not_heard():
    kube = MuteKube()
    one = election(kube, "one")
    await one.lead()
    kube.is_mute = True
    keeping = begin(one.keep())
    await asyncio.sleep(RENEW_S + 1)
    keeping.cancel()
    kube.is_mute = False
    await one.resign()
    assert holder(kube) == ""


async def test_lead_that_another_one_has_is_not_given_back():
    kube = MemoryKube()
    one = election(kube, "one")
    await one.lead()
    await election(kube, "two").lead()
    await one.resign()
    assert holder(kube) == "two"
