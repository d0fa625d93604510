"""Where etcd is and who we are to it: the JSON of the secret, in full or refused.

    {"endpoints": "https://etcd-0:2379,https://etcd-1:2379", "userid": "mesh", "password": "…",
     "root_prefix": "wml-serving", "certificate": "ca.crt", "client_certificate": "tls.crt",
     "client_key": "tls.key"}

Certificates and key are PEM text or the names of files. No value is ever in a message.
"""

import json
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Self

import grpc
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mesh.ops.settings import InvalidSettings

DEFAULT_PORT = 2379
PEM = "-----BEGIN "
ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?/?"
)

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class EtcdSettings(BaseModel):
    """The settings of the store in etcd; `read` or `load` them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoints: Text = Field(
        description="Members of the etcd, `[http[s]://]host[:2379]` with commas between."
    )
    userid: Text | None = Field(default=None, description="The user, where etcd has users.")
    password: SecretStr | None = Field(default=None, description="Of that user.", repr=False)
    root_prefix: str = Field(
        default="wml-serving", description="Before every key: each mesh of an etcd has its own."
    )
    certificate: Text | None = Field(
        default=None,
        description="PEM or file: who has signed etcd's certificate; the system's if not set.",
    )
    client_certificate: Text | None = Field(
        default=None, description="PEM or file: for an etcd that asks for one."
    )
    client_key: SecretStr | None = Field(
        default=None, description="PEM or file: of that certificate.", repr=False
    )
    folder: Path = Field(default=Path(), exclude=True, repr=False)

    @classmethod
    def load(cls, text_or_path: str) -> Self:
        """From JSON text, or from a file, whose folder is where it finds the files that it names.

        Raises InvalidSettings.
        """
        if text_or_path.lstrip().startswith("{"):
            return cls.read(text_or_path)
        path = Path(text_or_path)
        try:
            return cls.read(path.read_text(), path.parent)
        except (OSError, UnicodeDecodeError) as error:
            cause = getattr(error, "strerror", None) or "no text"
            raise InvalidSettings((f"etcd: {path} cannot be read: {cause}",)) from error

    @classmethod
    def read(cls, json_text: str, folder: Path = Path()) -> Self:
        """From JSON; names of files are relative to `folder`. Raises InvalidSettings."""
        try:
            given = json.loads(json_text)
        except ValueError as error:
            raise InvalidSettings(("etcd: not JSON",)) from error
        if not isinstance(given, dict):
            raise InvalidSettings(("etcd: not a JSON object",))
        if "folder" in given:
            raise InvalidSettings(("etcd.folder: unknown field",))
        try:
            return cls.model_validate(given | {"folder": folder})
        except ValidationError as error:
            raise InvalidSettings(tuple(_problems(error))) from None

    @property
    def is_tls(self) -> bool:
        """As the endpoints say; without a word there, where a certificate is given."""
        schemes = {scheme for scheme, _ in self._parsed()}
        return "https" in schemes or ("http" not in schemes and self.certificate is not None)

    @property
    def targets(self) -> tuple[str, ...]:
        """The members as `host:port`."""
        return tuple(dict.fromkeys(target for _, target in self._parsed()))

    @property
    def root(self) -> bytes:
        """What stands before each key: the root prefix and a slash, so that none begins another."""
        stem = self.root_prefix.rstrip("/")
        return f"{stem}/".encode() if stem else b""

    def below(self, prefix: str) -> Self:
        """The same etcd, with a part of what is below the root prefix, for one mesh of several."""
        return self.model_copy(update={"root_prefix": f"{self.root_prefix.rstrip('/')}/{prefix}"})

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Read from the files anew at each call; None without TLS. Raises InvalidSettings."""
        if not self.is_tls:
            return None
        secret = self.client_key
        problems: list[str] = []
        texts = [
            self._pem(name, value, problems)
            for name, value in (
                ("certificate", self.certificate),
                ("client_key", None if secret is None else secret.get_secret_value()),
                ("client_certificate", self.client_certificate),
            )
        ]
        if problems:
            raise InvalidSettings(tuple(f"etcd.{problem}" for problem in problems))
        return grpc.ssl_channel_credentials(*texts)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = list(self._misfits())
        if not problems:
            try:
                self.credentials()
            except InvalidSettings as error:
                problems += [problem.removeprefix("etcd.") for problem in error.problems]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _misfits(self) -> list[str]:
        bad = [text for text in self._endpoints() if not _is_endpoint(text)]
        if bad:
            return ["endpoints: not [http[s]://]host[:port] with commas between"]
        problems: list[str] = []
        if len({scheme for scheme, _ in self._parsed()} & {"http", "https"}) == 2:
            problems.append("endpoints: some are https and some are http")
        if not self.is_tls and (self.certificate or self.client_certificate or self.client_key):
            problems.append("endpoints: http, though certificates are given")
        if (self.userid is None) != (self.password is None):
            problems.append("userid: goes with password")
        if (self.client_certificate is None) != (self.client_key is None):
            problems.append("client_certificate: goes with client_key")
        return problems

    def _endpoints(self) -> list[str]:
        return [text.strip() for text in self.endpoints.split(",")]

    def _parsed(self) -> list[tuple[str | None, str]]:
        found = [ENDPOINT.fullmatch(text) for text in self._endpoints()]
        return [
            (match["scheme"], f"{match['host']}:{match['port'] or DEFAULT_PORT}")
            for match in found
            if match is not None
        ]

    def _pem(self, name: str, value: str | None, problems: list[str]) -> bytes | None:
        if value is None:
            return None
        text = value
        if PEM not in value:
            try:
                text = (self.folder / value).read_text()
            except (OSError, ValueError) as error:
                cause = getattr(error, "strerror", None) or "no text"
                problems.append(f"{name}: neither PEM nor a file that can be read: {cause}")
                return None
        if PEM not in text:
            problems.append(f"{name}: not PEM")
        elif name == "certificate" and not _is_authority(text):
            problems.append(f"{name}: holds no certificate that can be understood")
        return text.encode()


def _is_authority(pem: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except ssl.SSLError:
        return False
    return True


def _is_endpoint(text: str) -> bool:
    match = ENDPOINT.fullmatch(text)
    return match is not None and 0 < int(match["port"] or DEFAULT_PORT) < 65536


def _problems(error: ValidationError) -> list[str]:
    problems: list[str] = []
    for item in error.errors(include_input=False, include_url=False):
        path = ".".join(["etcd", *(str(part) for part in item["loc"])])
        if item["type"] == "missing":
            problems.append(f"{path}: required")
        elif item["type"] == "extra_forbidden":
            problems.append(f"{path}: unknown field")
        elif item["loc"]:
            problems.append(f"{path}: {item['msg']}")
        else:
            problems += [f"{path}.{text}" for text in _own_text(item).split("\n")]
    return problems


def _own_text(item: Any) -> str:
    return str(item["msg"]).removeprefix("Value error, ")
