"""boto3 clients, one for each content of an account, the least recently used closed first.

A client carries an account's credentials and certificate; a changed entry is another account and so
gets another client. Making one costs tens of milliseconds: it is done in threads only.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from cachetools import LRUCache

from mesh.storage.keys import S3Account

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MOST_CLIENTS = 32
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
# A refused connection is tried once more; an answer that says no is not.
ATTEMPTS = 2
CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class _Opened:
    """A client and, where the account brings a CA of its own, the file that boto3 reads it from."""

    client: "S3Client"
    certificate: Path | None

    def close(self) -> None:
        self.client.close()
        if self.certificate is not None:
            self.certificate.unlink(missing_ok=True)


class _Closing(LRUCache[S3Account, _Opened]):
    """Closes what it evicts. A request under way ends as it would have."""

    def popitem(self) -> tuple[S3Account, _Opened]:
        account, opened = super().popitem()
        opened.close()
        return account, opened


class S3Clients:
    """Safe to call from several threads. `close` drops every connection that is idle."""

    def __init__(self, most: int = MOST_CLIENTS) -> None:
        self._lock = Lock()
        self._session = boto3.session.Session()
        self._opened = _Closing(most)

    def get(self, account: S3Account) -> "S3Client":
        with self._lock:
            opened = self._opened.get(account)
            if opened is None:
                opened = self._opened[account] = self._open(account)
            return opened.client

    def close(self) -> None:
        with self._lock:
            while self._opened:
                self._opened.popitem()

    def _open(self, account: S3Account) -> _Opened:
        certificate = _certificate_file(account.certificate)
        client = self._session.client(
            "s3",
            endpoint_url=account.endpoint_url,
            region_name=account.region,
            aws_access_key_id=account.access_key_id.get_secret_value(),
            aws_secret_access_key=account.secret_access_key.get_secret_value(),
            verify=None if certificate is None else str(certificate),
            config=_config(account),
        )
        return _Opened(client, certificate)


def _certificate_file(pem: str) -> Path | None:
    if not pem:
        return None
    with tempfile.NamedTemporaryFile("w", prefix="s3-ca-", suffix=".pem", delete=False) as file:
        file.write(pem)
    return Path(file.name)


def _config(account: S3Account) -> Config:
    """Path-style, as any store but Amazon's needs, and checksums only where S3 demands them."""
    host = urlsplit(account.endpoint_url).hostname or ""
    is_amazon = host.endswith(".amazonaws.com")
    return Config(
        signature_version="s3v4",
        s3={"addressing_style": "auto" if is_amazon else "path"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
