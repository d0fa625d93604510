"""What JSON Schema (draft 2020-12) says of a document, for the keywords that our schemas use.

A keyword that it does not know is an error, so that no schema is taken for checked which is not.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from operator import ge, le
from typing import Any

NO_CHECK = {"$schema", "$defs", "title", "description", "default"}
TYPES = {
    "string": str,
    "object": dict,
    "array": list,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
# By keyword: for values of which type, what is measured, and how it must compare.
BOUNDS: Mapping[str, tuple[str, Callable[[Any], Any], Callable[[Any, Any], bool]]] = {
    "minLength": ("string", len, ge),
    "maxLength": ("string", len, le),
    "minItems": ("array", len, ge),
    "minProperties": ("object", len, ge),
    "minimum": ("number", lambda value: value, ge),
    "maximum": ("number", lambda value: value, le),
}


def problems(schema: Mapping[str, Any], document: Any) -> list[str]:
    """Everything that is wrong, with its path; empty where the document is valid."""
    return list(_problems(schema, document, schema, "document"))


def _problems(
    schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], at: str
) -> Iterator[str]:
    for keyword, wanted in schema.items():
        if keyword in NO_CHECK:
            continue
        if keyword == "$ref":
            yield from _problems(root["$defs"][wanted.removeprefix("#/$defs/")], value, root, at)
        elif keyword in ("anyOf", "oneOf", "allOf", "not"):
            yield from _combined(keyword, wanted, value, root, at)
        elif keyword in ("properties", "additionalProperties", "items"):
            yield from _inner(keyword, schema, value, root, at)
        elif not _is_met(keyword, wanted, value):
            yield f"{at}: {keyword} {wanted}"


def _combined(keyword: str, wanted: Any, value: Any, root: Any, at: str) -> Iterator[str]:
    options = wanted if isinstance(wanted, list) else [wanted]
    met = sum(not list(_problems(option, value, root, at)) for option in options)
    least, most = {
        "anyOf": (1, len(options)),
        "oneOf": (1, 1),
        "allOf": (len(options), len(options)),
        "not": (0, 0),
    }[keyword]
    if not least <= met <= most:
        yield f"{at}: {keyword}"


def _inner(keyword: str, schema: Any, value: Any, root: Any, at: str) -> Iterator[str]:
    if keyword == "items":
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from _problems(schema["items"], item, root, f"{at}[{index}]")
        return
    known = schema.get("properties", {})
    for field, inner in value.items() if isinstance(value, dict) else ():
        place = f"{at}.{field}"
        if keyword == "properties" and field in known:
            yield from _problems(known[field], inner, root, place)
        elif keyword == "additionalProperties" and field not in known:
            extra = schema[keyword]
            yield from _problems({"not": {}} if extra is False else extra, inner, root, place)


def _is_met(keyword: str, wanted: Any, value: Any) -> bool:
    """For a keyword that looks at one value; one of another type is none of its business."""
    match keyword:
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else wanted
            return any(_is_a(kind, value) for kind in kinds)
        case "const":
            return bool(value == wanted)
        case "required":
            return not isinstance(value, dict) or set(wanted) <= set(value)
        case "pattern":
            return not isinstance(value, str) or _found(wanted, value)
    kind, measure, is_fit = BOUNDS[keyword]
    return not _is_a(kind, value) or is_fit(measure(value), wanted)


def _found(pattern: str, text: str) -> bool:
    """As ECMAScript has it: `$` is the very end, which in Python may have a line feed after it."""
    return re.search(re.sub(r"\$(?=$|\||\))", r"\\Z", pattern), text, re.ASCII) is not None


def _is_a(kind: str, value: Any) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, TYPES[kind]) and (not is_bool or kind == "boolean")
