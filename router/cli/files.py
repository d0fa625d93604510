"""The documents behind `-f`: files, folders of them, or standard input.

Everything is read before anything is done, and every problem is named with its file.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from mesh.wire.documents import MAX_BYTES, InvalidManifest, load_documents
from router.cli.failures import Failure

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Document:
    """A document, and for messages where it stands."""

    place: str
    content: Any


def file_option(*, required: bool) -> Callable[[Command], Command]:
    """`-f`, as often as one likes. The argument is `files`."""
    return click.option(
        "-f",
        "--filename",
        "files",
        multiple=True,
        required=required,
        metavar="FILE|FOLDER|-",
        help="A file, a folder of *.yaml, *.yml and *.json, or - for standard input.",
    )


def read_documents(names: Sequence[str]) -> tuple[list[Document], list[str]]:
    """All documents, in order, and what could not be read. Raises Failure where there are none."""
    documents: list[Document] = []
    problems: list[str] = []
    for place, text in _texts(names):
        try:
            contents = load_documents(text)
        except InvalidManifest as error:
            problems += [f"{place}: {problem}" for problem in error.problems]
            continue
        for number, content in enumerate(contents, 1):
            numbered = place if len(contents) == 1 else f"{place}, document {number}"
            documents.append(Document(numbered, content))
    if not documents and not problems:
        raise Failure("error: no objects passed")
    return documents, problems


def problems_of(document: Document, check: Callable[[object], object]) -> Iterable[str]:
    """What `check` has against a document, one a line."""
    try:
        check(document.content)
    except InvalidManifest as error:
        return [f"{document.place}: {problem}" for problem in error.problems]
    return []


def refuse_all(problems: Sequence[str]) -> None:
    """Ends the command where there are problems."""
    if problems:
        raise Failure("\n".join(f"error: {problem}" for problem in problems))


def read_whole(name: str) -> str:
    """The text of one file, or of standard input, of any size."""
    if name == STDIN:
        return _decoded("standard input", sys.stdin.buffer.read())
    return _decoded(name, _content(Path(name), -1))


def _texts(names: Sequence[str]) -> Iterable[tuple[str, str]]:
    for name in names:
        if name == STDIN:
            yield "standard input", _decoded("standard input", sys.stdin.buffer.read(MAX_BYTES + 1))
            continue
        for path in _paths(Path(name)):
            yield str(path), _decoded(str(path), _content(path))


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise Failure(f"error: {path}: no files that end in {', '.join(SUFFIXES)}")
    return found


def _content(path: Path, most_bytes: int = MAX_BYTES + 1) -> bytes:
    # One byte over the limit is enough to be refused.
    try:
        with path.open("rb") as file:
            return file.read(most_bytes)
    except OSError as error:
        raise Failure(f"error: {path}: {(error.strerror or str(error)).lower()}") from error


def _decoded(place: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"error: {place}: not UTF-8 text") from error
