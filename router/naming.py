"""How the messages of a method name the Predictor."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from mesh.wire.field_path import Path, field_name, read_string
from mesh.wire.infer import read_head, with_name

VMODEL_HEADER = "mm-vmodel-id"


@dataclass(frozen=True, slots=True)
class Naming:
    """`read` gives something with a `name`, which may be empty; `write` the message for a model.

    `field`: what errors call the place of the name. `read` raises InvalidRequest.
    """

    field: str
    read: Callable[[bytes], Any]
    write: Callable[[Any, str], bytes]


class Foreign(NamedTuple):
    """A message that goes on as it is: whoever holds the model knows where its id belongs."""

    name: str
    message: bytes


def kserve(field: str) -> Naming:
    """Field 1, called so, which takes the model's id."""
    return Naming(field, lambda message: read_head(message, field), with_name)


def at_path(path: Path) -> Naming:
    """A string at this path of field numbers; with an empty path, metadata alone names it."""
    if not path:
        return Naming(VMODEL_HEADER, lambda message: Foreign("", message), _as_it_is)
    return Naming(
        field_name(path), lambda message: Foreign(read_string(message, path), message), _as_it_is
    )


def _as_it_is(head: Foreign, _: str) -> bytes:
    return head.message
