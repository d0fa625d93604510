"""What etcd alone can do to a store: restarts, lost data and members, users, certificates."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mesh.core.errors import Unavailable
from mesh.ops.settings import InvalidSettings
from mesh.registry.etcd import EtcdRegistry
from mesh.registry.etcd_settings import EtcdSettings
from mesh.registry.follow import AsBytes, Follower
from mesh.registry.port import Change, LeaseLost, Put
from tests.support.certificates import authority, signed
from tests.support.etcd import running_cluster, running_etcd

WITHIN_S = 20.0


@dataclass
class Seen:
    """What a follower delivered."""

    values: dict[str, bytes] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    missing: list[frozenset[str]] = field(default_factory=list)

    def take(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            self.history.append(change.key)
            if change.value is None:
                self.values.pop(change.key, None)
            else:
                self.values[change.key] = change.value


@asynccontextmanager
async def following(registry: EtcdRegistry) -> AsyncIterator[Seen]:
    seen = Seen()
    follower = Follower(
        registry, AsBytes, seen.take, on_reset=lambda missing, _: seen.missing.append(missing)
    )
    running = asyncio.get_running_loop().create_task(follower.run())
    try:
        await follower.wait_synced()
        yield seen
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110 - it may be anything
            await asyncio.sleep(0.02)


async def commit(registry: EtcdRegistry, key: str, value: bytes = b"1") -> None:
    """As soon as etcd takes it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            with suppress(Unavailable):
                await registry.commit([Put(key, value)])
                return
            await asyncio.sleep(0.05)


@pytest.mark.timeout(60)
async def test_reads_that_are_given_up_do_not_end_etcd(tmp_path: Path):
    """As they do where they are transactions that only read, until etcd 3.5.5."""
    with running_etcd(tmp_path / "etcd") as etcd:
        registry = await EtcdRegistry.connect(etcd.settings())
        for number in range(0, 1_000, 100):
            await registry.commit(
                [Put(f"{it:04}", b"x" * 1_000) for it in range(number, number + 100)]
            )
        for turn in range(300):
            reading = asyncio.get_running_loop().create_task(
                registry.list("") if turn % 3 else registry.commit([])
            )
            await asyncio.sleep(turn % 30 / 10_000)
            reading.cancel()
            await asyncio.wait([reading])
        assert len((await registry.list("")).entries) == 1_000
        assert etcd.process is not None
        assert etcd.process.poll() is None
        await registry.close()


@pytest.mark.timeout(60)
async def test_watch_goes_on_after_a_restart_and_loses_nothing(tmp_path: Path):
    with running_etcd(tmp_path / "etcd") as etcd:
        registry = await EtcdRegistry.connect(etcd.settings())
        async with following(registry) as seen:
            await registry.commit([Put("a", b"1")])
            await until(lambda: "a" in seen.values)
            etcd.kill()
            with pytest.raises(Unavailable):
                await registry.commit([Put("b", b"1")])
            etcd.start()
            await commit(registry, "c")
            await until(lambda: "c" in seen.values)
            assert seen.missing == []
            assert seen.history.count("a") == 1
        await registry.close()


@pytest.mark.timeout(60)
async def test_wiped_store_deletes_nothing_and_says_what_is_missing(tmp_path: Path):
    with running_etcd(tmp_path / "etcd") as etcd:
        registry = await EtcdRegistry.connect(etcd.settings())
        lease = await registry.grant(10)
        async with following(registry) as seen:
            for number in range(20):
                await registry.commit([Put(f"k{number}", b"1")])
            await until(lambda: len(seen.values) == 20)
            etcd.kill()
            etcd.wipe()
            etcd.start()
            await commit(registry, "k3", b"2")
            await until(lambda: seen.missing)
            # Whether it came with the first listing or after it depends on who was first.
            assert seen.missing[0] >= {f"k{number}" for number in range(20)} - {"k3"}
            await until(lambda: seen.values["k3"] == b"2")
            assert len(seen.values) == 20
            with pytest.raises(LeaseLost):
                await registry.keep_alive(lease)
        await registry.close()


@pytest.mark.timeout(90)
async def test_cluster_that_loses_its_leader_loses_no_event(tmp_path: Path):
    with running_cluster(tmp_path / "etcd") as members:
        endpoints = ",".join(member.endpoint for member in members)
        registry = await EtcdRegistry.connect(members[0].settings(endpoints=endpoints))
        lease = await registry.grant(10)
        async with following(registry) as seen:
            await commit(registry, "before")
            leader = next(member for member in members if member.is_leader())
            leader.kill()
            for number in range(20):
                await commit(registry, f"after-{number}")
            await until(lambda: len(seen.values) == 21)
            assert seen.missing == []
            await registry.keep_alive(lease)
        await registry.close()


@pytest.mark.timeout(60)
async def test_frozen_store_is_given_up_and_found_again(tmp_path: Path):
    with running_etcd(tmp_path / "etcd") as etcd:
        registry = await EtcdRegistry.connect(etcd.settings())
        async with following(registry) as seen:
            etcd.freeze()
            async with asyncio.timeout(WITHIN_S):
                with pytest.raises(Unavailable):
                    await registry.commit([Put("a", b"1")])
            etcd.resume()
            await commit(registry, "b")
            await until(lambda: "b" in seen.values)
        await registry.close()


@pytest.mark.timeout(60)
async def test_certificates_and_users_let_us_in_and_nobody_else(tmp_path: Path):
    by = authority(tmp_path / "authority")
    ours = signed(tmp_path / "ours", by, "IP:127.0.0.1", "DNS:localhost")
    stranger = signed(tmp_path / "stranger", authority(tmp_path / "other"), "IP:127.0.0.1")
    with running_etcd(tmp_path / "etcd", certificates=ours) as etcd:
        etcd.ctl("user", "add", "root:secret-of-root")
        etcd.ctl("user", "add", "mesh:secret-of-mesh")
        etcd.ctl("role", "add", "mesh")
        etcd.ctl("role", "grant-permission", "mesh", "--prefix=true", "readwrite", "mesh-of-ours/")
        etcd.ctl("user", "grant-role", "mesh", "mesh")
        etcd.ctl("user", "grant-role", "root", "root")
        etcd.ctl("auth", "enable")

        def settings(folder: Path, **changed: str) -> EtcdSettings:
            secret = {
                "endpoints": etcd.endpoint,
                "userid": "mesh",
                "password": "secret-of-mesh",
                "root_prefix": "mesh-of-ours",
                "certificate": str(folder / "ca.crt"),
                "client_certificate": str(folder / "tls.crt"),
                "client_key": (folder / "tls.key").read_text(),
            }
            return EtcdSettings.read(json.dumps(secret | changed))

        registry = await EtcdRegistry.connect(settings(ours))
        async with following(registry) as seen:
            await registry.commit([Put("a", b"1")])
            await until(lambda: "a" in seen.values)
        await registry.close()
        with pytest.raises(InvalidSettings) as refused:
            await EtcdRegistry.connect(settings(ours, password="wrong-password"))
        assert "wrong-password" not in str(refused.value)
        with pytest.raises((InvalidSettings, Unavailable)):
            await EtcdRegistry.connect(settings(stranger), patience_s=1)
