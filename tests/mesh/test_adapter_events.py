"""What a node hears from an adapter, and how often."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.adapters.events import Events, Mailbox
from mesh.core.ids import ModelId
from mesh.storage.keys import StorageKeys
from mesh.wire.pb import wml_adapter_pb2 as pb
from tests.support.adapters import Parts, parts_in, running_adapter, settings_for

M = ModelId("m")


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with parts_in(tmp_path) as made:
        yield made


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_load_is_told_as_pulling_and_loading(parts: Parts) -> None:
    parts.puller.files["p"] = {"model.bin": b"x" * 1000}
    async with parts.life() as client:
        await client.ready()
        watch = await client.watch()
        await client.load("m", "p")
        first, last = (await watch.read()).load_progress, (await watch.read()).load_progress
        if last.stage != "loading":
            last = (await watch.read()).load_progress
        assert (first.model_id, first.stage) == ("m", "pulling")
        assert (last.model_id, last.stage, last.total_bytes) == ("m", "loading", 1000)


async def test_changed_key_is_told_by_its_name_alone(parts: Parts) -> None:
    async with parts.life() as client:
        await client.ready()
        watches = [await client.watch(), await client.watch()]
        parts.keys.changed.put_nowait("store")
        for watch in watches:
            event = await watch.read()
            assert event == pb.Event(storage_key_changed=pb.StorageKeyChanged(key="store"))


async def test_adapter_says_that_it_lives_where_nothing_happens(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.adapters.server.BEAT_S", 0.05)
    async with parts.life() as client:
        await client.ready()
        watch = await client.watch()
        assert dict(await watch.initial_metadata())["wml-beat"] == "0.05"
        for _ in range(3):
            assert await watch.read() == pb.Event(alive=pb.Alive())


async def test_changed_key_is_told_from_the_real_folder(parts: Parts, tmp_path: Path) -> None:
    keys = StorageKeys(tmp_path / "storage-config", poll_s=0.01)
    settings = settings_for(parts.root, parts.socket)
    async with running_adapter(settings, parts.server, parts.puller, keys) as client:
        await client.ready()
        watch = await client.watch()
        (tmp_path / "storage-config").mkdir()
        (tmp_path / "storage-config/new").write_text("{}")
        assert (await watch.read()).storage_key_changed.key == "new"


async def test_watch_of_a_server_that_is_away_hears_it_at_once(parts: Parts) -> None:
    parts.server.is_up = False
    async with parts.life() as client:
        watch = await client.watch()
        assert (await watch.read()).WhichOneof("event") == "runtime_lost"


async def test_watch_ends_when_the_adapter_stops(parts: Parts) -> None:
    async with parts.life() as client:
        await client.ready()
        watch = await client.watch()
    assert [event async for event in watch] == []


async def test_progress_is_told_five_times_a_second_at_most() -> None:
    clock = Clock()
    events = Events(clock)
    told = 0
    for step in range(1000):
        clock.now_s = step / 1000
        with events.watching() as mailbox:
            events.progress(M, "pulling", step, 1000)
            mailbox.close()
            told += await mailbox.take() is not None
    assert told == 5


async def test_progress_tells_a_new_stage_and_the_end_at_once() -> None:
    events = Events(Clock())
    with events.watching() as mailbox:
        for stage, done_bytes in (("pulling", 0), ("pulling", 10), ("loading", 0)):
            events.progress(M, stage, done_bytes, 10)
            event = await mailbox.take()
            assert event is not None
            assert (event.load_progress.stage, event.load_progress.done_bytes) == (
                stage,
                done_bytes,
            )


async def test_mailbox_keeps_the_newest_of_each_subject_in_order() -> None:
    mailbox = Mailbox()
    for done_bytes in range(10_000):
        progress = pb.LoadProgress(model_id="m", done_bytes=done_bytes)
        mailbox.put(("progress", "m"), pb.Event(load_progress=progress))
        mailbox.put(("lost", ""), pb.Event(runtime_lost=pb.RuntimeLost()))
    mailbox.close()
    first, second, end = await mailbox.take(), await mailbox.take(), await mailbox.take()
    assert first is not None
    assert first.load_progress.done_bytes == 9999
    assert second is not None
    assert second.WhichOneof("event") == "runtime_lost"
    assert end is None
