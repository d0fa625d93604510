"""A model's schema file, `{"inputs": [{name, datatype, shape}], "outputs": [...]}`, as MLServer's
settings have it. MLServer answers ModelMetadata from these; it does not check requests by them.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mesh.adapters.errors import UnusableFiles

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]


class _Tensor(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1)
    datatype: Datatype
    shape: list[int]


class _Schema(BaseModel):
    model_config = ConfigDict(extra="ignore")

    inputs: list[_Tensor] = Field(default_factory=list)
    outputs: list[_Tensor] = Field(default_factory=list)


def read_tensors(path: Path) -> dict[str, Any]:
    """The `inputs` and `outputs` that the file has. Raises UnusableFiles with every problem."""
    try:
        schema = _Schema.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = "; ".join(f"{_place(item)}: {item['msg']}" for item in error.errors())
        raise UnusableFiles(f"the schema file is not usable: {problems}") from error
    return schema.model_dump(exclude_defaults=True)


def _place(item: Any) -> str:
    return ".".join(str(part) for part in item["loc"]) or "schema"
