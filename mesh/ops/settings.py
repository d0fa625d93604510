"""Settings: the only module that reads the environment.

A program's settings are a frozen pydantic model whose fields are named as the variables, in lower
case. Each field says its unit and its reason in its description; the reference page is made from
them. All problems are reported together.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mesh.ops.logs import LogFormat

MIB = 1024 * 1024
# What a unix socket's path may have, with its end mark left out.
SOCKET_PATH_BYTES = 107


# Our processes fork only to become another program, and gRPC's own log is not in our form.
GRPC_DEFAULTS = {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"}


def settle_grpc() -> None:
    """Sets what gRPC reads from the environment, where nobody else has; before it is imported."""
    for name, value in GRPC_DEFAULTS.items():
        os.environ.setdefault(name, value)  # noqa: TID251 - the place


class InvalidSettings(Exception):
    """The program cannot start with these settings; `problems` has all of them."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("settings: " + "; ".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """The base: reads the variables that its fields name, and no other."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=str.upper, populate_by_name=True
    )

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of this process; a variable that is empty counts as not set.

        Raises InvalidSettings.
        """
        given = os.environ if environment is None else environment  # noqa: TID251 - the place
        names = [name.upper() for name in cls.model_fields]
        try:
            return cls.model_validate({name: given[name] for name in names if given.get(name)})
        except ValidationError as error:
            raise InvalidSettings(tuple(_problem(item) for item in error.errors())) from error

    @classmethod
    def reference(cls) -> list[tuple[str, str, str]]:
        """Name, default and description of each setting, in order."""
        return [
            (name.upper(), _shown(field.get_default()), field.description or "")
            for name, field in cls.model_fields.items()
        ]


class AdapterSettings(Settings):
    """An adapter beside a model server."""

    adapter_socket: Path = Field(
        description="Path of the unix socket on which the node finds the adapter."
    )
    runtime_port: int = Field(
        default=8001,
        ge=1,
        le=65535,
        description="gRPC port of the model server on this host; 8001 is MLServer's in a pod.",
    )
    container_mem_req_bytes: int = Field(
        gt=0, description="Bytes of memory that the model server's container may count on."
    )
    mem_buffer_bytes: int = Field(
        default=256 * MIB,
        ge=0,
        description="Bytes of these that are not for models but for the server's own work.",
    )
    loading_concurrency: int = Field(
        default=1,
        ge=1,
        description="Loads at once; one, because a load takes more memory than its model.",
    )
    loadtime_timeout: int = Field(
        default=90_000,
        ge=1,
        description="Milliseconds that a load may take, from the pull's begin to ready.",
    )
    default_modelsize: int = Field(
        default=1_000_000,
        ge=1,
        description="Bytes that a model is taken for until it was loaded once.",
    )
    modelsize_multiplier: float = Field(
        default=1.25,
        gt=0,
        allow_inf_nan=False,
        description="Bytes in memory for each byte on disk; objects are larger than files.",
    )
    limit_per_model_concurrency: int = Field(
        default=0,
        ge=0,
        description="Requests in flight to one model; 0 is no limit, MLServer queues itself.",
    )
    root_model_dir: Path = Field(
        default=Path("/models"),
        description="Folder for model files, at the same path for adapter and model server.",
    )
    model_disk_bytes: int = Field(
        default=0,
        ge=0,
        description="Bytes of files that ROOT_MODEL_DIR may hold; 0 is what its disk has room for.",
    )
    storage_config_dir: Path = Field(
        default=Path("/storage-config"),
        description="Folder with one JSON file a storage key, as the secret is mounted.",
    )
    storage_secret_name: str = Field(
        default="",
        description="Secret of this pod's namespace that is followed through the API of Kubernetes"
        " and kept in STORAGE_CONFIG_DIR; none: somebody else fills the folder.",
    )
    pod_namespace: str = Field(
        default="", description="Namespace of this pod; needed with STORAGE_SECRET_NAME."
    )
    local_storage_roots: str = Field(
        default="",
        pattern=r"^(/[^:]*(:/[^:]*)*)?$",
        description="Folders in which storage keys of type local may have their root: absolute"
        " paths, colons between; none means that there are no such keys.",
    )
    runtime_version: str = Field(
        default="", description="What the adapter tells nodes as the server's version."
    )
    mlserver_models_subdir: str = Field(
        default="_mlserver_models",
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$",
        description="Folder below ROOT_MODEL_DIR that MLServer was started on.",
    )
    mlserver_implementations: str = Field(
        default="{}",
        description="Further model types, a JSON object of type name to MLServer class, for"
        " images with runtimes of their own.",
    )
    log_format: LogFormat = Field(
        default=LogFormat.KEY_VALUE, description="Log lines: text or json."
    )
    log_level: str = Field(
        default="info",
        pattern=r"^(?i:debug|info|warning|error)$",
        description="The least level that is logged: debug, info, warning or error.",
    )

    @property
    def capacity_bytes(self) -> int:
        """What models may take of the container's memory."""
        return self.container_mem_req_bytes - self.mem_buffer_bytes

    @model_validator(mode="after")
    def _fits(self) -> Self:
        problems = [
            f"{name.upper()}: must be an absolute path"
            for name in ("adapter_socket", "root_model_dir", "storage_config_dir")
            if not getattr(self, name).is_absolute()
        ]
        if self.storage_secret_name and not self.pod_namespace:
            problems.append("POD_NAMESPACE: required with STORAGE_SECRET_NAME")
        if self.capacity_bytes <= 0:
            problems.append("CONTAINER_MEM_REQ_BYTES: must be more than MEM_BUFFER_BYTES")
        if len(os.fsencode(self.adapter_socket)) > SOCKET_PATH_BYTES:
            problems.append(f"ADAPTER_SOCKET: has more than {SOCKET_PATH_BYTES} bytes")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _problem(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{name}: required"
    text = str(error["msg"]).removeprefix("Value error, ")
    return f"{name}: {text}" if name else text


def _shown(default: object) -> str:
    text = str(default)
    return "required" if text == "PydanticUndefined" else text
