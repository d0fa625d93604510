"""A LoadModelRequest of the SPI as a LoadRequest: the JSON of `modelKey`, read strictly.

Field names are those of the field: storage_key, bucket, model_type (an object, or a string),
schema_path, storage_params (older: parameters). Fields that nobody knows are passed over.
"""

import json
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mesh.adapters.errors import InvalidModel
from mesh.adapters.port import LoadRequest
from mesh.core.ids import ModelId, StorageKey
from mesh.core.spec import ModelType
from mesh.storage.transfer import PullRequest

ID_BYTES = 200
# `#` and `?` end the path in the URI by which MLServer finds a model's files.
UNSAFE = frozenset("/\\#?")


class ModelRequest(Protocol):
    """What loadModel and predictModelSize have in common."""

    @property
    def modelId(self) -> str: ...  # noqa: N802 - a field of the contract

    @property
    def modelType(self) -> str: ...  # noqa: N802

    @property
    def modelPath(self) -> str: ...  # noqa: N802

    @property
    def modelKey(self) -> str: ...  # noqa: N802


class _TypeFields(BaseModel):
    name: str = Field(min_length=1)
    version: str = ""

    @field_validator("version", mode="before")
    @classmethod
    def _none_is_any(cls, value: Any) -> Any:
        return "" if value is None else value


class _KeyFields(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    storage_key: str = Field(min_length=1)
    bucket: str | None = None
    model_type: _TypeFields | None = None
    schema_path: str | None = None
    storage_params: dict[str, str] = Field(default_factory=dict)
    parameters: dict[str, str] = Field(default_factory=dict)

    @field_validator("model_type", mode="before")
    @classmethod
    def _may_be_text(cls, value: Any) -> Any:
        return _type_fields(value) if isinstance(value, str) else value


def read_request(request: ModelRequest) -> LoadRequest:
    """Raises InvalidModel, which names every field that is wrong."""
    model = safe_id(request.modelId)
    fields = _key_fields(request.modelKey)
    kind = fields.model_type or _type_of(request.modelType)
    files = PullRequest(
        storage_key=StorageKey(fields.storage_key),
        path=request.modelPath,
        bucket=fields.bucket or "",
        schema_path=fields.schema_path or "",
        parameters={**fields.parameters, **fields.storage_params},
    )
    return LoadRequest(model, ModelType(kind.name, kind.version), files, key=size_key(request))


def size_key(request: ModelRequest) -> tuple[str, ...]:
    """The same for the same files and type, under whatever id."""
    return (request.modelType, request.modelPath, request.modelKey)


def safe_id(text: str) -> ModelId:
    """`text` as a model id, if it can be the name of a folder; raises InvalidModel."""
    if not text:
        raise InvalidModel("modelId", "required")
    if not is_safe_id(text):
        raise InvalidModel("modelId", f"{text!r} cannot be the name of a folder")
    return ModelId(text)


def is_safe_id(text: str) -> bool:
    """Hidden names are not: MLServer does not look into them."""
    return (
        text.isprintable()
        and not text.startswith(".")
        and not UNSAFE & set(text)
        and 0 < len(text.encode(errors="replace")) <= ID_BYTES
    )


def _key_fields(text: str) -> _KeyFields:
    try:
        fields = json.loads(text)
    except ValueError as error:
        raise InvalidModel("modelKey", f"is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidModel("modelKey", "must be a JSON object")
    try:
        return _KeyFields.model_validate(fields)
    except ValidationError as error:
        first, *rest = [(_place(item["loc"]), _said(item)) for item in error.errors()]
        more = "".join(f"; {place}: {said}" for place, said in rest)
        raise InvalidModel(first[0], first[1] + more) from error


def _type_of(text: str) -> _TypeFields:
    """The type as the request itself has it, where the key says nothing."""
    if not text:
        raise InvalidModel("modelKey.model_type", "required")
    return _TypeFields.model_validate(_type_fields(text))


def _type_fields(text: str) -> dict[str, str]:
    """`name:version` or `name` as the fields of a model type."""
    name, _, version = text.partition(":")
    return {"name": name, "version": version}


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(["modelKey", *(str(part) for part in location)])


def _said(error: Any) -> str:
    is_absent = error["type"] in ("missing", "string_too_short")
    return "required" if is_absent else str(error["msg"])
