"""What an entry of storage-config may say: one model a type.

A problem names a field and never its value, which may be a secret. Fields that nobody knows are
passed over, since entries of other systems have more of them.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)


class _Account(BaseModel):
    """Equal entries are equal accounts, so that an account can key a cache."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, extra="ignore")


class S3Account(_Account):
    """A bucket of an S3 store. Without credentials its requests are not signed."""

    type: Literal["s3"]
    access_key_id: SecretStr | None = Field(default=None, min_length=1)
    secret_access_key: SecretStr | None = Field(default=None, min_length=1, validate_default=True)
    endpoint_url: str = Field(pattern=r"^https?://[^/@\s]+(/[^@\s]*)?$")
    region: str = Field(default="us-east-1", min_length=1)
    bucket: str = ""
    # The older name of `bucket`, which wins.
    default_bucket: str = ""
    certificate: str = ""

    @field_validator("secret_access_key")
    @classmethod
    def _both_or_neither(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        # An access_key_id that is wrong by itself is not there, and has its own problem.
        if "access_key_id" in info.data:
            key_id = info.data["access_key_id"]
            if value is None and key_id is not None:
                raise ValueError("required, since there is an access_key_id")
            if value is not None and key_id is None:
                raise ValueError("needs an access_key_id; without both, access is anonymous")
        return value

    @field_validator("certificate")
    @classmethod
    def _is_pem(cls, value: str) -> str:
        if value:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=value)
            except (ssl.SSLError, ValueError):
                raise ValueError("is not a PEM certificate") from None
        return value

    @property
    def is_anonymous(self) -> bool:
        return self.access_key_id is None

    def bucket_or(self, wanted: str) -> str:
        """The bucket to use where a Predictor asks for `wanted` (empty: it names none)."""
        return wanted or self.bucket or self.default_bucket


class LocalAccount(_Account):
    """A folder of this machine; the adapter's settings say below which ones it may be."""

    type: Literal["local"]
    root: Path

    @field_validator("root")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        if not value.is_absolute() or not str(value).isprintable():
            raise ValueError("must be an absolute path")
        return value


@dataclass(frozen=True, slots=True)
class NoAccount:
    """Of files that are named by their own path, for which there is no entry."""


Account = S3Account | LocalAccount | NoAccount
ACCOUNTS: Mapping[str, type[S3Account | LocalAccount]] = {"local": LocalAccount, "s3": S3Account}


def read_account(fields: Mapping[str, Any]) -> tuple[Account | None, list[str]]:
    """The account, or all that is wrong with it: as values, since pydantic's errors hold input."""
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in ACCOUNTS:
        wrong = "required" if kind is None else "unknown"
        return None, [f"type: {wrong}, it is one of {', '.join(ACCOUNTS)}"]
    try:
        return ACCOUNTS[kind].model_validate(fields), []
    except ValidationError as error:
        found = error.errors(include_input=False, include_context=False, include_url=False)
    return None, [f"{'.'.join(map(str, each['loc']))}: {_said(each)}" for each in found]


def _said(problem: Any) -> str:
    if problem["type"] == "missing":
        return "required"
    return str(problem["msg"]).removeprefix("Value error, ")
