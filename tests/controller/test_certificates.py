"""Certificates between nodes: who trusts whom at each moment of a change, and what is kept."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509 import verification

from mesh.controller.authority import (
    NODE_LIFE,
    SPREAD,
    Certificates,
    due,
    first,
    renewed,
    signs,
)
from mesh.controller.certificates import CertificateKeeper, KubeSecrets, from_secrets, to_secrets
from mesh.controller.names import AUTHORITY_SECRET, TLS_SECRET
from mesh.peers.tls import NODE_NAME, NodeTls
from tests.controller.some_kube import SomeKube

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def trusts(who: Certificates, shown: Certificates, now: datetime) -> bool:
    """Whether a node with the files of `who` accepts what one with those of `shown` shows."""
    store = verification.Store(x509.load_pem_x509_certificates(who.trusted))
    verifier = verification.PolicyBuilder().store(store).time(now)
    try:
        verifier.build_server_verifier(x509.DNSName(NODE_NAME)).verify(
            x509.load_pem_x509_certificate(shown.node.certificate), []
        )
        verifier.build_client_verifier().verify(
            x509.load_pem_x509_certificate(shown.node.certificate), []
        )
    except verification.VerificationError:
        return False
    return True


def test_first_ones_are_good_for_a_node_and_nothing_is_due():
    kept = first(NOW)
    assert trusts(kept, kept, NOW)
    assert renewed(kept, NOW) is kept
    assert NOW < due(kept) < NOW + NODE_LIFE
    assert not trusts(first(NOW), kept, NOW)


def test_every_neighbour_in_time_trusts_the_other_over_ten_years():
    """Whoever has not seen the last change yet, and whoever has, accept each other."""
    kept, now, authorities = first(NOW), NOW, set()
    while now < NOW + timedelta(days=3650):
        now = due(kept)
        after = renewed(kept, now)
        assert after is not kept
        assert trusts(kept, after, now)
        assert trusts(after, kept, now)
        assert due(after) >= now + SPREAD
        assert renewed(after, now) is after
        assert signs(after.authority, after.node)
        authorities.add(after.authority.certificate)
        kept = after
    assert len(authorities) > 4
    assert kept.trusted.count(b"BEGIN") <= 2


def test_after_a_long_sleep_it_begins_anew():
    kept = first(NOW)
    later = NOW + timedelta(days=4000)
    assert trusts(renewed(kept, later), renewed(kept, later), later) is False  # two new ones
    anew = renewed(kept, later)
    assert trusts(anew, anew, later)


def test_node_certificate_overdue_is_renewed_by_the_same_authority():
    kept = first(NOW)
    after = renewed(kept, NOW + timedelta(days=100))
    assert after.authority == kept.authority
    assert after.node != kept.node


class Secrets:
    """Secrets in memory; `written` has the names as they were applied."""

    def __init__(self) -> None:
        self.all: dict[str, Any] = {}
        self.written: list[str] = []

    async def get(self, name: str) -> dict[str, Any] | None:
        return self.all.get(name)

    async def apply(self, secret: dict[str, Any]) -> None:
        self.written.append(secret["metadata"]["name"])
        self.all[secret["metadata"]["name"]] = secret


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now.timestamp()


def keeper(secrets: Secrets, folder: Path, clock: Clock | None = None) -> CertificateKeeper:
    return CertificateKeeper(secrets, "models", folder, clock or Clock())


def test_secrets_hold_all_of_it_and_nodes_never_see_the_authority_key():
    kept = renewed(first(NOW), NOW + timedelta(days=600))
    assert kept.coming is not None
    authority, nodes = to_secrets(kept, "models")
    assert from_secrets(authority, nodes) == kept
    switched = renewed(kept, due(kept))
    assert switched.going is not None
    assert from_secrets(*to_secrets(switched, "models")) == switched
    assert set(nodes["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    assert from_secrets(authority, to_secrets(first(NOW), "models")[1]) is None
    assert from_secrets(authority, None) is None
    assert from_secrets({**authority, "data": {}}, nodes) is None


async def test_keeper_writes_once_and_again_when_due(tmp_path: Path):
    secrets, clock = Secrets(), Clock()
    keeping = keeper(secrets, tmp_path, clock)
    assert await keeping.keep() == 600
    assert secrets.written == [AUTHORITY_SECRET, TLS_SECRET]
    shown = (tmp_path / "tls.crt").read_bytes()
    await keeping.keep()
    assert len(secrets.written) == 2
    clock.now += timedelta(days=70)
    await keeping.keep()
    assert len(secrets.written) == 4
    assert (tmp_path / "tls.crt").read_bytes() != shown


async def test_secrets_of_a_namespace_over_the_port(tmp_path: Path):
    kube = SomeKube()
    keeping = CertificateKeeper(KubeSecrets(kube, "models"), "models", tmp_path, Clock())
    await keeping.keep()
    assert set(kube.objects) == {("Secret", AUTHORITY_SECRET), ("Secret", TLS_SECRET)}
    kube.written.clear()
    await keeping.keep()
    assert kube.written == []


async def test_another_controller_takes_what_is_there(tmp_path: Path):
    secrets = Secrets()
    await keeper(secrets, tmp_path / "one").keep()
    await keeper(secrets, tmp_path / "two").keep()
    assert len(secrets.written) == 2
    for name in ("ca.crt", "tls.crt", "tls.key"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "two/tls.key").stat().st_mode & 0o077 == 0


async def test_deleted_secret_is_made_anew_by_the_same_authority(tmp_path: Path):
    secrets = Secrets()
    await keeper(secrets, tmp_path).keep()
    before = from_secrets(*secrets.all.values())
    del secrets.all[TLS_SECRET]
    await keeper(secrets, tmp_path).keep()
    after = from_secrets(secrets.all[AUTHORITY_SECRET], secrets.all[TLS_SECRET])
    assert before is not None
    assert after is not None
    assert after.authority == before.authority
    assert trusts(before, after, NOW)


async def test_controller_that_ended_between_the_secrets_goes_on_where_it_was(tmp_path: Path):
    """At each change in ten years: the authority's Secret is new, that of the nodes is not."""
    secrets, clock = Secrets(), Clock()
    await keeper(secrets, tmp_path, clock).keep()
    while clock.now < NOW + timedelta(days=3650):
        kept = from_secrets(secrets.all[AUTHORITY_SECRET], secrets.all[TLS_SECRET])
        assert kept is not None
        clock.now = due(kept)
        secrets.all[AUTHORITY_SECRET] = to_secrets(renewed(kept, clock.now), "models")[0]
        await keeper(secrets, tmp_path, clock).keep()
        after = from_secrets(secrets.all[AUTHORITY_SECRET], secrets.all[TLS_SECRET])
        assert after is not None
        assert trusts(kept, after, clock.now)
        assert trusts(after, kept, clock.now)


async def test_spoilt_authority_is_replaced(tmp_path: Path):
    secrets = Secrets()
    await keeper(secrets, tmp_path).keep()
    for data in ({}, {"tls.crt": "bm8=", "tls.key": "bm8="}):
        secrets.all[AUTHORITY_SECRET]["data"] = data
        await keeper(secrets, tmp_path).keep()
        assert from_secrets(secrets.all[AUTHORITY_SECRET], secrets.all[TLS_SECRET]) is not None


async def test_nodes_with_these_files_reach_each_other_and_a_stranger_does_not(tmp_path: Path):
    class Now:
        def __call__(self) -> float:
            return datetime.now(UTC).timestamp()  # noqa: TID251 - gRPC looks at the real clock

    for name in ("ours", "others"):
        await CertificateKeeper(Secrets(), "models", tmp_path / name, Now()).keep()
    ours, others = NodeTls(tmp_path / "ours"), NodeTls(tmp_path / "others")
    ours.check()
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", ours.server_credentials())
    await server.start()
    try:
        assert await _reaches(port, ours)
        assert not await _reaches(port, others)
    finally:
        await server.stop(None)


async def _reaches(port: int, tls: NodeTls) -> bool:
    options = [("grpc.ssl_target_name_override", NODE_NAME)]
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{port}", tls.channel_credentials(), options
    ) as channel:
        try:
            async with asyncio.timeout(1.0):
                await channel.channel_ready()
        except TimeoutError:
            return False
        return True
