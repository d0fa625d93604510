"""Following the objects of a kind: a listing, every change, and what happens when that breaks."""

import asyncio
from contextlib import asynccontextmanager

from mesh.kube.kinds import CONFIG_MAP
from mesh.kube.reflector import Reflector
from tests.support.kube_memory import MemoryKube


def config_map(name: str, **data: str) -> dict:
    meta = {"name": name, "namespace": "ns"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@asynccontextmanager
async def following(kube: MemoryKube):
    told: list[tuple[str, dict | None]] = []
    changed = lambda name, obj: told.append((name, obj and obj.get("data")))  # noqa: E731
    reflector = Reflector(kube, CONFIG_MAP, "ns", changed)
    running = asyncio.get_running_loop().create_task(reflector.run())
    yield reflector, told
    running.cancel()
    await asyncio.wait([running])


async def test_who_wrote_which_field_is_not_kept():
    kube = MemoryKube()
    owned = {"name": "a", "namespace": "ns", "managedFields": [{"manager": "kubectl"}]}
    kube.put(config_map("a") | {"metadata": owned})
    async with following(kube) as (reflector, _):
        await reflector.synced.wait()
        assert "managedFields" not in reflector.objects["a"]["metadata"]
        kube.put(config_map("a", k="1") | {"metadata": owned})
        await asyncio.sleep(0.1)
        assert reflector.objects["a"]["data"] == {"k": "1"}
        assert "managedFields" not in reflector.objects["a"]["metadata"]


async def test_what_is_there_and_each_change_is_told():
    kube = MemoryKube()
    kube.put(config_map("a"))
    kube.put(config_map("elsewhere") | {"metadata": {"name": "x", "namespace": "other"}})
    async with following(kube) as (reflector, told):
        await reflector.synced.wait()
        assert set(reflector.objects) == {"a"}
        kube.put(config_map("b", k="1"))
        kube.put(config_map("b", k="2"))
        kube.remove("ConfigMap", "a")
        await asyncio.sleep(0.1)
    assert told == [("a", {}), ("b", {"k": "1"}), ("b", {"k": "2"}), ("a", None)]
    assert kube.calls["list"] == 1


async def test_outage_keeps_what_was_seen_and_tells_what_changed_meanwhile():
    kube = MemoryKube()
    kube.put(config_map("a"))
    kube.put(config_map("b"))
    async with following(kube) as (reflector, told):
        await reflector.synced.wait()
        kube.go()
        await asyncio.sleep(30)
        assert set(reflector.objects) == {"a", "b"}
        del told[:]
        kube.remove("ConfigMap", "a")
        kube.put(config_map("c"))
        kube.come_back()
        await asyncio.sleep(15)
    assert told == [("a", None), ("c", {})]


async def test_changes_that_cannot_be_watched_any_more_are_found_by_a_new_listing():
    kube = MemoryKube()
    kube.put(config_map("a"))
    kube.put(config_map("b"))
    async with following(kube) as (reflector, told):
        await reflector.synced.wait()
        kube.go()
        await asyncio.sleep(1)
        kube.remove("ConfigMap", "a")
        kube.put(config_map("b", k="new"))
        kube.forget_changes()
        kube.come_back()
        await asyncio.sleep(15)
        assert told[2:] == [("a", None), ("b", {"k": "new"})]
        assert kube.calls["list"] == 2
