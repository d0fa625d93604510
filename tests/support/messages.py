"""The messages that the code can give, as patterns, and those that the documentation quotes."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support.stand import ROOT

# Fewer letters than this say nothing: `f"{a}: {b}"` would match every message.
LEAST_LETTERS = 6
# The first cell of a table's row, where it is code and nothing else.
QUOTED = re.compile(r"^\| `([^`]+)` \|", re.M)


@dataclass(frozen=True, slots=True)
class Message:
    """A text of the source: `pattern` is what it can be once its values are in it."""

    place: str
    text: str
    pattern: re.Pattern[str]

    def can_be(self, quoted: str) -> bool:
        return self.pattern.fullmatch(quoted) is not None


@cache
def messages() -> tuple[Message, ...]:
    """Every string of mesh and router that is long enough to be recognised."""
    files = [*ROOT.glob("mesh/**/*.py"), *ROOT.glob("router/**/*.py")]
    return tuple(found for file in files if "pb" not in file.parts for found in messages_in(file))


def messages_in(file: Path) -> Iterator[Message]:
    for node in _walk(ast.parse(file.read_text())):
        if (found := _message(node, f"{file.relative_to(ROOT)}")) is not None:
            yield found


def raised_in(file: Path) -> Iterator[Message]:
    """The messages that a module of errors gives its errors: arguments of calls, not docstrings."""
    for call in ast.walk(ast.parse(file.read_text())):
        if not isinstance(call, ast.Call):
            continue
        for node in (node for argument in call.args for node in _walk(argument)):
            found = _message(node, f"{file.relative_to(ROOT)}:{call.lineno}")
            if found is not None and " " in found.text:
                yield found


def quoted(page: Path) -> list[str]:
    return QUOTED.findall(page.read_text())


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """A node and all in it, but for the pieces of a text with values in it."""
    yield node
    if not isinstance(node, ast.JoinedStr):
        for child in ast.iter_child_nodes(node):
            yield from _walk(child)


def _message(node: ast.AST, place: str) -> Message | None:
    match node:
        case ast.JoinedStr(values=values):
            texts = [part.value if isinstance(part, ast.Constant) else None for part in values]
        case ast.Constant(value=str(text)):
            texts = [text]
        case _:
            return None
    if sum(map(len, re.findall(r"[A-Za-z]+", "".join(filter(None, texts))))) < LEAST_LETTERS:
        return None
    pattern = "".join(".*" if text is None else re.escape(str(text)) for text in texts)
    shown = "".join("<>" if text is None else str(text) for text in texts)
    return Message(place, shown, re.compile(pattern, re.S))
