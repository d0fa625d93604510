"""The paths of V2 over HTTP: which method and which call each has."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import unquote

from aiohttp import web

from router.rest.calls import Calls
from router.rest.failure import HttpProblem

GET, POST = "GET", "POST"
Call: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.Response]]


def call_of(calls: Calls, request: web.BaseRequest) -> Call:
    """What answers a request. Raises HttpProblem where nothing does."""
    path = request.rel_url.raw_path
    found = _at(calls, [unquote(part) for part in path.strip("/").split("/")])
    if found is None:
        raise HttpProblem(404, f"there is nothing at {path}")
    method, call = found
    if request.method != method:
        raise HttpProblem(405, f"{path} takes {method}, not {request.method}")
    return call


def _at(calls: Calls, parts: Sequence[str]) -> tuple[str, Call] | None:
    match parts:
        case ["v2"]:
            return GET, calls.server
        case ["v2", "health", "live"]:
            return GET, calls.live
        case ["v2", "health", "ready"]:
            return GET, calls.ready
        case ["v2", "models", name, "versions", version, *rest] if name and version:
            return _of_model(calls, name, version, rest)
        case ["v2", "models", name, *rest] if name:
            return _of_model(calls, name, "", rest)
    return None


def _of_model(
    calls: Calls, name: str, version: str, rest: Sequence[str]
) -> tuple[str, Call] | None:
    match rest:
        case []:
            return GET, partial(calls.metadata, name=name, version=version)
        case ["ready"]:
            return GET, partial(calls.model_ready, name=name)
        case ["infer"]:
            return POST, partial(calls.infer, name=name, version=version)
    return None
