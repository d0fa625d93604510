"""Keeps the Secrets with the certificates between nodes, and our own copy as files.

`wml-serving-internal-tls` is what nodes mount. The authority's key is in a Secret of its own, which
only the controller may read. What somebody else has written or deleted there is made anew.
"""

import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from mesh.controller.authority import Certificates, Pair, due, first, issued, renewed, signs
from mesh.controller.names import AUTHORITY_SECRET, GROUP, OUR_LABELS, TLS_SECRET
from mesh.kube.kinds import SECRET
from mesh.kube.port import Kube

log = logging.getLogger(__name__)

SINCE = f"{GROUP}/since"
CERTIFICATE, KEY, TRUSTED = "tls.crt", "tls.key", "ca.crt"
COMING_CERTIFICATE, COMING_KEY, GOING = "coming.crt", "coming.key", "going.crt"
# Somebody may have deleted a Secret.
LOOK_S = 600.0
LEAST_S = 1.0

Json = dict[str, Any]


class Secrets(Protocol):
    """The Secrets of our namespace."""

    async def get(self, name: str) -> Json | None: ...

    async def apply(self, secret: Json) -> None: ...


class KubeSecrets:
    """Those of a namespace, over the port."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def get(self, name: str) -> Json | None:
        return await self._kube.get(SECRET, self._namespace, name)

    async def apply(self, secret: Json) -> None:
        await self._kube.apply(secret)


class CertificateKeeper:
    """`folder` gets `ca.crt`, `tls.crt` and `tls.key`, for our own calls to nodes."""

    def __init__(
        self, secrets: Secrets, namespace: str, folder: Path, clock: Callable[[], float]
    ) -> None:
        self._secrets = secrets
        self._namespace = namespace
        self._folder = folder
        self._clock = clock

    async def keep(self) -> float:
        """Brings Secrets and files up to date; after how many seconds to look again."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        authority = await self._secrets.get(AUTHORITY_SECRET)
        nodes = await self._secrets.get(TLS_SECRET)
        kept = from_secrets(authority, nodes)
        wanted = restored(authority, now) if kept is None else renewed(kept, now)
        if wanted is not kept:
            log.info("certificates renewed", extra={"is_first": kept is None})
            # The authority comes first: what it has signed is never without it.
            for secret in to_secrets(wanted, self._namespace):
                await self._secrets.apply(secret)
        self._write(wanted)
        return max(LEAST_S, min(LOOK_S, (due(wanted) - now).total_seconds()))

    def _write(self, wanted: Certificates) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, content in _files(wanted).items():
            path = self._folder / name
            if path.exists() and path.read_bytes() == content:
                continue
            part = path.with_name(f".{name}.part")
            part.touch(mode=0o600)
            part.write_bytes(content)
            part.replace(path)


def to_secrets(kept: Certificates, namespace: str) -> tuple[Json, Json]:
    """The authority's Secret, and that of the nodes."""
    held = {CERTIFICATE: kept.authority.certificate, KEY: kept.authority.key}
    if kept.coming is not None:
        held |= {COMING_CERTIFICATE: kept.coming.certificate, COMING_KEY: kept.coming.key}
    if kept.going is not None:
        held[GOING] = kept.going
    since = {SINCE: kept.since.isoformat()}
    return (
        _secret(AUTHORITY_SECRET, namespace, held, since),
        _secret(TLS_SECRET, namespace, _files(kept), {}),
    )


def from_secrets(authority: Json | None, nodes: Json | None) -> Certificates | None:
    """What is kept there; None where anything is missing or does not belong together."""
    if authority is None or nodes is None:
        return None
    try:
        shown = _data(nodes)
        held = _authority(authority)
        kept = Certificates(
            node=Pair(shown[CERTIFICATE], shown[KEY]),
            authority=held.authority,
            since=held.since,
            coming=held.coming,
            going=held.going,
        )
        is_whole = signs(kept.authority, kept.node) and shown[TRUSTED] == kept.trusted
    except (KeyError, ValueError, TypeError):
        return None
    return kept if is_whole else None


def restored(authority: Json | None, now: datetime) -> Certificates:
    """Made anew, by the authority that there is if it can still be used.

    So a controller that ended between the two Secrets goes on where it was.
    """
    try:
        if authority is not None:
            held = _authority(authority)
            return renewed(issued(held.authority, held.since, held.coming, held.going, now), now)
    except (KeyError, ValueError, TypeError):
        log.warning("the authority for certificates cannot be used; there is a new one")
    return first(now)


@dataclass(frozen=True, slots=True)
class _Held:
    authority: Pair
    since: datetime
    coming: Pair | None
    going: bytes | None


def _authority(secret: Json) -> _Held:
    """Raises KeyError, ValueError or TypeError."""
    held = _data(secret)
    coming = None
    if COMING_CERTIFICATE in held:
        coming = Pair(held[COMING_CERTIFICATE], held[COMING_KEY])
    since = datetime.fromisoformat(secret["metadata"]["annotations"][SINCE])
    return _Held(Pair(held[CERTIFICATE], held[KEY]), since, coming, held.get(GOING))


def _files(kept: Certificates) -> dict[str, bytes]:
    return {TRUSTED: kept.trusted, CERTIFICATE: kept.node.certificate, KEY: kept.node.key}


def _secret(name: str, namespace: str, data: dict[str, bytes], annotations: dict[str, str]) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": OUR_LABELS,
            "annotations": annotations,
        },
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(content).decode() for key, content in data.items()},
    }


def _data(secret: Json) -> dict[str, bytes]:
    return {key: base64.b64decode(text) for key, text in (secret.get("data") or {}).items()}
