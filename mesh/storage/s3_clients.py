"""boto3 clients, one for each content of an account, the least recently used closed first.

A client carries an account's credentials and certificate; a changed entry is another account and so
gets another client. Making one costs tens of milliseconds: it is done in threads only.
What the machine has set for other users of AWS (AWS_*, ~/.aws) is not looked at.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as VARIABLES
from botocore.loaders import Loader
from cachetools import LRUCache

from mesh.storage.accounts import S3Account

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pydantic import SecretStr

MOST_CLIENTS = 32
CONNECT_TIMEOUT_S = 5
# A silent store is resumed five times (resumption.py), and a load has 90 s: so it says why.
READ_TIMEOUT_S = 10
# We try again ourselves: boto waits for up to a second before.
ATTEMPTS = 1
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

    def __init__(self, most: int = MOST_CLIENTS, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        self._read_timeout_s = read_timeout_s
        self._lock = Lock()
        self._session = isolated_session()
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
            aws_access_key_id=_shown(account.access_key_id),
            aws_secret_access_key=_shown(account.secret_access_key),
            verify=None if certificate is None else str(certificate),
            config=_config(account, self._read_timeout_s),
        )
        client.meta.events.register("before-call.s3.GetObject", _ask_for_checksums)
        return _Opened(client, certificate)


def isolated_session() -> boto3.session.Session:
    """A session that reads no AWS_* variable and nothing below ~/.aws: all of it is our default.

    Another's AWS_PROFILE must neither break us nor change what is done with an account.
    """
    unset = {name: (None, None, default, as_) for name, (_, _, default, as_) in VARIABLES.items()}
    for file in ("config_file", "credentials_file"):
        unset[file] = (None, None, os.devnull, None)
    session = botocore.session.Session(session_vars=unset)
    session.get_component("config_store").set_config_variable("s3", {})
    models = Loader(
        extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False
    )
    session.register_component("data_loader", models)
    return boto3.session.Session(botocore_session=session)


def _ask_for_checksums(params: dict[str, Any], **_: object) -> None:
    """As ChecksumMode=ENABLED would, with which boto checks them: part by part, not resumed."""
    params["headers"]["x-amz-checksum-mode"] = "ENABLED"


def _shown(secret: "SecretStr | None") -> str | None:
    return None if secret is None else secret.get_secret_value()


def _certificate_file(pem: str) -> Path | None:
    if not pem:
        return None
    with tempfile.NamedTemporaryFile("w", prefix="s3-ca-", suffix=".pem", delete=False) as file:
        file.write(pem)
    return Path(file.name)


def _config(account: S3Account, read_timeout_s: float) -> Config:
    """Path-style, as any store but Amazon's needs, and checksums only where S3 demands them."""
    host = urlsplit(account.endpoint_url).hostname or ""
    is_amazon = host.endswith(".amazonaws.com")
    return Config(
        signature_version=UNSIGNED if account.is_anonymous else "s3v4",
        s3={"addressing_style": "auto" if is_amazon else "path"},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=CONNECTIONS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
