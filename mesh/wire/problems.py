"""Strict validation of a user's document, and what is wrong with it in words and with its path.

Everything wrong is reported at once: `spec.storage.s3.secretKey: required`. Values are never
quoted, since a credential may stand in the wrong place; names of unknown fields are.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from mesh.wire.documents import InvalidManifest

Manifest = TypeVar("Manifest", bound="Strict")

PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
KINDS = {
    "string_type": "a string",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}


class Strict(BaseModel):
    """The base of what users write: camelCase names, nothing unknown, nothing converted."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, document: Any) -> Any:
        # As Kubernetes has it; an unknown field stays, to be named.
        if not isinstance(document, Mapping):
            return document
        known = {field.alias for field in cls.model_fields.values()}
        return {key: v for key, v in document.items() if v is not None or key not in known}


def validated(model: type[Manifest], document: object) -> tuple[Manifest | None, list[str]]:
    """The document as a model, or what is wrong with it."""
    try:
        return model.model_validate(document), []
    except ValidationError as error:
        details = error.errors(include_url=False)
        return None, [_problem(model, detail) for detail in details]


def settled(manifest: Manifest | None, problems: list[str]) -> Manifest:
    """The manifest, where nothing at all is wrong; else raises InvalidManifest."""
    if manifest is None or problems:
        raise InvalidManifest(tuple(problems))
    return manifest


def given(document: object, *path: str) -> bool:
    """Whether there is a value other than null at this path of a document of any shape."""
    return look_up(document, *path) is not None


def look_up(document: object, *path: str) -> object:
    """What is at this path of a document of any shape, or None."""
    for part in path:
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _problem(model: type[BaseModel], detail: ErrorDetails) -> str:
    return f"{_path(detail['loc'])}: {_what(model, detail)}"


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            name = part if PLAIN_NAME.fullmatch(part) else ascii(part[:63])
            path += f".{name}" if path else name
    return path or "document"


def _what(model: type[BaseModel], detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return "required"
    if kind == "extra_forbidden":
        return "unknown field" + _suggestion(model, detail["loc"])
    if kind in KINDS:
        hint = " (quote it)" if kind == "string_type" and _is_scalar(detail["input"]) else ""
        return f"must be {KINDS[kind]}, not {_shape(detail['input'])}{hint}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {str(context['expected']).replace(chr(39), '')}"
    # pydantic's own words for the few that are left: bounds and lengths.
    return detail["msg"].replace("Input should", "must")


def _is_scalar(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _shape(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int():
            return "a number"
        case float():
            return "a decimal number"
        case str():
            return "a string"
        case list():
            return "a list"
        case Mapping():
            return "a mapping"
        case _:
            return f"a value of type {type(value).__name__}"


def _suggestion(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    *parents, unknown = location
    known = _fields(model, parents)
    spelled = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(unknown)[:63].lower(), spelled, n=1)
    return f", did you mean {spelled[near[0]]}?" if near else ""


def _fields(model: type[BaseModel], parents: list[int | str]) -> list[str]:
    """The names that are known where `parents` leads to."""
    for parent in parents:
        if isinstance(parent, int):
            continue
        field = next((f for f in model.model_fields.values() if f.alias == parent), None)
        if field is not None:  # else it is the key of a mapping, whose values are the model
            model = _model_in(field.annotation) or model
    return [str(field.alias) for field in model.model_fields.values()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds one, perhaps optional or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in inner if model is not None), None)
