"""YAML and JSON text to plain documents, with the bounds that keep a hostile file harmless.

Bounds: 1 MiB of text, a depth of 64, and 100,000 values once every alias is written out. A field
given twice is refused, because one of the two would be lost in silence. Timestamps stay strings, as
they do in Kubernetes. What a document means is not looked at here, but that a v1 List is its items.
"""

import json
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from mesh.core.errors import InvalidRequest

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 100_000
# A caller reads these and they travel in gRPC metadata, which holds 8 KiB.
MAX_PROBLEMS = 20
MAX_PROBLEM_CHARS = 160
MERGE_TAG = "tag:yaml.org,2002:merge"
TIMESTAMP_TAG = "tag:yaml.org,2002:timestamp"


class InvalidManifest(InvalidRequest):
    """A user's file that cannot be taken.

    `problems` are all of them, each with its path; the message has one a line.
    """

    reason = "InvalidManifest"

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = tuple(problem[:MAX_PROBLEM_CHARS] for problem in problems[:MAX_PROBLEMS])
        if len(problems) > MAX_PROBLEMS:
            self.problems += (f"and {len(problems) - MAX_PROBLEMS} more problems",)
        super().__init__("manifest", "\n".join(self.problems))
        self.message = self.problem

    def __str__(self) -> str:
        return self.message


def load_documents(text: str) -> list[object]:
    """The documents of a file, empty ones left out and Lists replaced by their items.

    Raises InvalidManifest with the line where the text is not YAML, or over a bound.
    """
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise InvalidManifest((f"larger than {MAX_BYTES} bytes",))
    try:
        documents = _load(text)
    except yaml.MarkedYAMLError as error:
        raise InvalidManifest((_located(error),)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidManifest((str(error).partition("\n")[0] or "not YAML",)) from error
    return [item for document in documents if document is not None for item in _items(document)]


def _load(text: str) -> list[object]:
    if text.lstrip().startswith("{"):
        # JSON is read as such, for speed and because it may be indented by tabs.
        try:
            return [json.loads(text, object_pairs_hook=_object)]
        except json.JSONDecodeError:
            pass
    _check_bounds(text)
    return list(yaml.load_all(text, Loader=_Loader))


def _items(document: object) -> list[object]:
    if isinstance(document, dict) and document.get("kind") == "List":
        items = document.get("items")
        return list(items) if isinstance(items, list) else []
    return [document]


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {twice!r} is given twice")
    return fields


def _located(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}{error.problem or error.context or 'not YAML'}"


def _check_bounds(text: str) -> None:
    """Raises where the documents are too deep, or too large once aliases are written out.

    Works on events, which come before anything is built: the scanner is quadratic in the depth,
    and a chain of aliases doubles with every link.
    """
    open_sizes: list[int] = [0]
    open_anchors: list[str | None] = []
    sizes: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.CollectionStartEvent):
            open_sizes.append(1)
            open_anchors.append(anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            size = open_sizes.pop()
            sizes[open_anchors.pop()] = size
            open_sizes[-1] += size
        elif isinstance(event, yaml.ScalarEvent):
            sizes[anchor] = 1
            open_sizes[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            open_sizes[-1] += MAX_VALUES if anchor in open_anchors else sizes.get(anchor, 1)
        if len(open_sizes) > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if sum(open_sizes) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} values")


class _Loader(yaml.CSafeLoader):
    """The safe loader, but a field may be given only once and timestamps are strings."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP_TAG]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self._refuse_duplicates(key for key, _ in node.value)
        return super().construct_mapping(node, deep=deep)

    def _refuse_duplicates(self, keys: Iterable[yaml.Node]) -> None:
        seen = set()
        for key in keys:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE_TAG:
                continue
            if key.value in seen:
                problem = f"field {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
