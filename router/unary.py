"""Unary calls as bytes: by the public way of `grpc.aio`, or by a shorter one below it.

`grpc.aio` runs each call in a task of its own, with callbacks and a place in a set: half of what a
proxy in Python costs. The short way awaits the call of its Cython layer itself. That layer is not
public, so it is taken where it is known to be as expected; elsewhere calls cost more and are the
same (tests/router/test_unary.py holds both to it). See docs/decisions/0009-short-calls.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

import grpc
import grpc.aio

from mesh.agent.calls import Metadata
from mesh.ops.clock import wall_s

# Versions of grpcio whose Cython layer was tried: major and minor.
TRIED = ("1.85",)
LEFT = "the caller left"
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Reply(NamedTuple):
    """An answer with what came around it."""

    message: bytes
    initial: Metadata
    trailing: Metadata


# message, metadata, timeout in seconds. Raises AioRpcError; cancelled, it cancels the call.
UnaryCall: TypeAlias = Callable[[bytes, Metadata, float | None], Awaitable[Reply]]


def unary_call(
    channel: grpc.aio.Channel, method: str, version: str = grpc.__version__
) -> UnaryCall:
    """How `method` is called on `channel`, with this version of grpcio."""
    is_tried = version.rpartition(".")[0] in TRIED
    return short(channel, method) if is_tried else public(channel, method)


def public(channel: grpc.aio.Channel, method: str) -> UnaryCall:
    """With nothing but what `grpc.aio` documents."""
    multicallable: Any = channel.unary_unary(method, None, None)

    async def call(message: bytes, metadata: Metadata, timeout_s: float | None) -> Reply:
        begun = multicallable(message, timeout=timeout_s, metadata=metadata or None)
        answer = await begun
        initial, trailing = await begun.initial_metadata(), await begun.trailing_metadata()
        return Reply(answer, tuple(initial or ()), tuple(trailing or ()))

    return call


def short(channel: grpc.aio.Channel, method: str) -> UnaryCall:
    """By the Cython layer of a version that was tried; for channels without interceptors."""
    inner: Any = channel._channel  # type: ignore[attr-defined] # private
    path = method.encode()

    async def call(message: bytes, metadata: Metadata, timeout_s: float | None) -> Reply:
        deadline_s = None if timeout_s is None else wall_s() + timeout_s
        begun = inner.call(path, deadline_s, None, None, 0)
        try:
            answer = await begun.unary_unary(message, metadata, None)
        except asyncio.CancelledError:
            begun.cancel(LEFT)
            raise
        status = await begun.status()
        initial = await begun.initial_metadata()
        if not begun.is_ok():
            raise _error(initial, status)
        return Reply(answer, initial or (), status.trailing_metadata() or ())

    return call


def _error(initial: Metadata, status: Any) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        CODES[status.code()],
        grpc.aio.Metadata(*initial),
        grpc.aio.Metadata(*status.trailing_metadata()),
        details=status.details(),
        debug_error_string=status.debug_error_string(),
    )
