"""The store that one node keeps in memory for all, over loopback."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from mesh.core.errors import Conflict, Unavailable
from mesh.core.ids import NodeId, PredictorName
from mesh.ops.clock import monotonic_s
from mesh.peers.links import Links
from mesh.peers.tls import NODE_NAME, NodeTls
from mesh.registry.etcd_settings import EtcdSettings
from mesh.registry.follow import AsBytes, Follower
from mesh.registry.memory import MemoryRegistry
from mesh.registry.messages import PART_ENTRIES
from mesh.registry.peer import PeerRegistry
from mesh.registry.port import LeaseLost, Put, Unchanged
from mesh.registry.served import RegistryService
from mesh.wire import records
from mesh.wire.pb import wml_registry_pb2 as pb
from mesh.wire.pb import wml_registry_pb2_grpc as pb_grpc
from router.member import MemberSettings, joined
from router.node import Doors
from router.stores import OwnMemory, PeerMemory, Store, opened, store_settings
from tests.support.builders import predictor
from tests.support.certificates import authority, signed
from tests.support.ports import free_ports
from tests.support.world import begin, eventually


@asynccontextmanager
async def served(store: Store, address: str, tls: NodeTls | None = None) -> AsyncIterator[None]:
    server = grpc.aio.server()
    for register in store.services:
        register(server)
    if tls is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, tls.server_credentials())
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@asynccontextmanager
async def life(address: str, tls: NodeTls | None = None) -> AsyncIterator[Store]:
    """A store that a node keeps, from its start to its end."""
    async with opened(OwnMemory(), tls) as store, served(store, address, tls):
        yield store


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
async def asked(address: str) -> AsyncIterator[PeerRegistry]:
    registry = PeerRegistry(Links(), address)
    yield registry
    await registry.close()


def test_store_is_told_by_its_form(tmp_path: Path):
    assert store_settings("memory") == OwnMemory()
    assert store_settings("peer:router:8034") == PeerMemory("router:8034")
    assert isinstance(store_settings('{"endpoints": "http://127.0.0.1:1"}'), EtcdSettings)
    for root, below in (("", b"wml-serving/team/"), (', "root_prefix": "a/"', b"a/team/")):
        etcd = store_settings(f'{{"endpoints": "http://127.0.0.1:1"{root}}}', "team")
        assert isinstance(etcd, EtcdSettings)
        assert (etcd.root, etcd.targets) == (below, ("127.0.0.1:1",))
    assert store_settings("memory", "team") == OwnMemory()
    for text in ("peer:", "peer:router", "peer::8034", "peer:router:x"):
        with pytest.raises(Exception, match=f"--store: peer:HOST:PORT, not {text}"):
            store_settings(text)


async def test_another_life_of_the_store_is_another_store(address: str, asked: PeerRegistry):
    async with life(address):
        lease = await asked.grant(10.0)
        revision = await asked.commit([Put("a", b"1", lease)])
        before = await asked.list("")
    with pytest.raises(Unavailable, match=f"the store at {address} does not answer"):
        await asked.list("")
    assert asked.is_away
    async with life(address):
        assert (await asked.list("")).entries == ()
        assert not asked.is_away
        other = await asked.grant(10.0)
        again = await asked.commit([Put("a", b"2", other)])
        after = await asked.list("")
        assert after.store_id != before.store_id
        assert again > revision
        with pytest.raises(LeaseLost):
            await asked.keep_alive(lease)
        with pytest.raises(Conflict):
            await asked.commit([Put("a", b"3")], [Unchanged("a", revision)])
        with pytest.raises(Unavailable, match="another store"):
            await anext(asked.watch("", before.revision, before.store_id))


async def test_who_follows_a_store_that_restarts_is_told_what_it_lost(
    address: str, asked: PeerRegistry
):
    seen: dict[str, bytes | None] = {}
    lost: list[frozenset[str]] = []
    follower = Follower(
        asked,
        AsBytes,
        lambda changes: seen.update({it.key: it.value for it in changes}),
        on_reset=lambda missing, _: lost.append(missing),
    )
    following = begin(follower.run())
    async with life(address) as store:
        await store.registry.commit([Put("a", b"1"), Put("b", b"1")])
        await eventually(lambda: len(seen) == 2)
        assert follower.is_current
    await eventually(lambda: not follower.is_current)
    async with life(address) as store:
        await store.registry.commit([Put("b", b"2")])
        await eventually(lambda: seen.get("b") == b"2")
        assert (lost, seen["a"]) == ([frozenset({"a"})], b"1")
    following.cancel()


async def test_long_listing_comes_whole(address: str, asked: PeerRegistry):
    count = 2 * PART_ENTRIES + 1
    memory = MemoryRegistry(initial={f"k{number:05}": b"v" * 20_000 for number in range(count)})
    store = Store(memory, (RegistryService(memory).register,))
    async with served(store, address):
        snapshot = await asked.list("")
        assert [entry.key for entry in snapshot.entries] == [f"k{n:05}" for n in range(count)]
        assert snapshot == await memory.list("")
        assert (await asked.list("nothing")).entries == ()


async def test_listing_whose_pages_are_read_slowly_needs_the_store_no_more(
    address: str, asked: PeerRegistry
):
    # More than a connection holds on its way.
    entries = {f"k{number:05}": b"v" * 20_000 for number in range(6 * PART_ENTRIES)}
    memory = MemoryRegistry(initial=entries)
    async with served(Store(memory, (RegistryService(memory).register,)), address):
        pages = asked.pages("")
        first = await anext(pages)
    rest = [page async for page in pages]
    assert [entry.key for page in (first, *rest) for entry in page.entries] == list(entries)


async def test_node_that_keeps_no_store_is_not_taken_for_one(address: str):
    async with served(Store(MemoryRegistry()), address):
        with pytest.raises(Unavailable, match=f"the store at {address} does not answer: "):
            await PeerRegistry.connect(Links(), address, patience_s=0.0)


async def test_commit_that_no_store_takes_or_that_is_not_understood_is_refused(address: str):
    async with life(address), grpc.aio.insecure_channel(address) as channel:
        stub = pb_grpc.RegistryStub(channel)
        unknown: int = 77
        for request in (
            pb.CommitRequest(ops=[pb.Op(key="")]),
            pb.CommitRequest(checks=[pb.Check(key="a", kind=unknown)]),  # type: ignore[arg-type]
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Commit(request)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.timeout(20)
async def test_nobody_without_a_certificate_gets_at_the_store(tmp_path: Path, address: str):
    folder = signed(tmp_path / "node", authority(tmp_path / "ca"), f"DNS:{NODE_NAME}")
    stranger = signed(tmp_path / "other", authority(tmp_path / "ca2"), f"DNS:{NODE_NAME}")
    tls = NodeTls(folder)
    async with life(address, tls):
        for links in (Links(), Links(NodeTls(stranger))):
            with pytest.raises(Unavailable):
                await PeerRegistry.connect(links, address, patience_s=0.0)
        registry = await PeerRegistry.connect(Links(tls), address)
        await registry.commit([Put("a", b"1")])
        await registry.close()


@pytest.mark.timeout(20)
async def test_renewed_certificates_are_used_from_the_next_connection_on(
    tmp_path: Path, address: str
):
    """Both ends have others, of another authority, once the store restarts."""
    folder = signed(tmp_path / "node", authority(tmp_path / "ca"), f"DNS:{NODE_NAME}")
    renewed = signed(tmp_path / "renewed", authority(tmp_path / "ca2"), f"DNS:{NODE_NAME}")
    registry = PeerRegistry(Links(NodeTls(folder)), address)
    async with life(address, NodeTls(folder)):
        await registry.commit([Put("a", b"1")])
    shutil.copytree(renewed, folder, dirs_exist_ok=True)
    async with life(address, NodeTls(folder)):

        async def is_back() -> bool:
            try:
                return await registry.get("a") is None
            except Unavailable:
                return False

        await eventually(is_back)
    await registry.close()


@pytest.mark.timeout(20)
async def test_clients_get_in_once_the_other_nodes_had_time_to_say_what_they_know(address: str):
    """A node of before that notices late, and comes back in two steps."""
    doors = Doors("127.0.0.1:0", address, "127.0.0.1:0", grace_s=1.0)
    settings = MemberSettings("keeper", OwnMemory(), None, address, doors)
    known: list[str] = []

    async def remember() -> None:
        registry = await PeerRegistry.connect(Links(), address)
        for name, pause_s in (("p", 2.4), ("q", 0.4)):
            await asyncio.sleep(pause_s)
            record = predictor(name)
            key = records.predictor_key(PredictorName(name))
            await registry.commit([Put(key, records.encode(record))])
            known.append(name)
        await registry.close()

    remembering = begin(remember())
    begun_s = monotonic_s()
    async with joined(settings) as running:
        assert known == ["p", "q"]
        assert set(running.node.view.predictors) == {"p", "q"}
        assert monotonic_s() - begun_s < 8.0
        assert running.node.identity.id in running.node.view.nodes
        assert NodeId("keeper") != running.node.identity.id
    await remembering
