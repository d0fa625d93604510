"""What a request over HTTP says beside its path: body, headers that go on, deadline."""

import asyncio
import re
import zlib

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from mesh.agent.calls import Metadata
from mesh.core.errors import InvalidRequest
from mesh.ops.clock import monotonic_s
from router.rest.failure import HttpProblem
from router.server import ServerLimits

TIMEOUT_HEADER = "Grpc-Timeout"
TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
UNITS_S = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
COMPRESSED = ("gzip", "deflate")
GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
BROKEN = "the body cannot be read: it is not encoded as it says"
# Headers that go to the runtime, where gRPC can carry them.
FORWARDED = frozenset({"authorization", "baggage", "traceparent", "tracestate"})
FORWARDED_PREFIX = "x-"
KEY = re.compile(r"[0-9a-z_.-]+(?<!-bin)", re.ASCII)
VALUE = re.compile(r"[ -~]*", re.ASCII)
# `curl -d` says the third one of whatever it sends.
JSON_TYPES = frozenset(
    {"application/json", "application/octet-stream", "application/x-www-form-urlencoded"}
)


async def body_of(request: web.BaseRequest, limits: ServerLimits) -> bytes:
    """The whole body, as it came. Raises HttpProblem."""
    if request.content_length is not None and request.content_length > limits.message_bytes:
        raise too_large(limits.message_bytes)
    if request.can_read_body and request.content_type not in JSON_TYPES:
        raise HttpProblem(415, f"Content-Type: {request.content_type} is not application/json")
    await _go_on(request)
    try:
        async with asyncio.timeout(limits.body_s):
            return await _read(request, limits.message_bytes)
    except TimeoutError:
        raise HttpProblem(408, f"the body did not arrive within {limits.body_s:g} s") from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise HttpProblem(400, BROKEN) from error


def decompressed(body: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body without its Content-Encoding, of which there may be one. Raises HttpProblem."""
    if encoding not in COMPRESSED:
        raise HttpProblem(415, f"Content-Encoding: {encoding} is neither gzip nor deflate")
    stream = zlib.decompressobj(GZIP_OR_ZLIB)
    try:
        content = stream.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise HttpProblem(400, BROKEN) from error
    if len(content) > most_bytes:
        raise too_large(most_bytes)
    if not stream.eof:
        raise HttpProblem(400, BROKEN)
    return content


async def _read(request: web.BaseRequest, most_bytes: int) -> bytes:
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > most_bytes:
            raise too_large(most_bytes)
    return bytes(body)


def too_large(most_bytes: int) -> HttpProblem:
    """The problem of a request with more bytes than that."""
    return HttpProblem(413, f"the request is larger than {most_bytes} bytes")


async def _go_on(request: web.BaseRequest) -> None:
    """Large bodies are held back by some clients until they are asked for."""
    if request.version == HttpVersion11 and request.headers.get("Expect", "") == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def check_headers(request: web.BaseRequest, most_bytes: int) -> None:
    """Raises HttpProblem where all headers together are larger."""
    size = sum(len(key) + len(value) for key, value in request.raw_headers)
    if size > most_bytes:
        raise HttpProblem(431, f"the headers are larger than {most_bytes} bytes")


def metadata_of(request: web.BaseRequest) -> Metadata:
    """The headers that go on as gRPC metadata."""
    return tuple(
        (key, value)
        for key, value in ((key.lower(), value) for key, value in request.headers.items())
        if (key in FORWARDED or key.startswith(FORWARDED_PREFIX))
        and KEY.fullmatch(key)
        and VALUE.fullmatch(value)
    )


def deadline_of(request: web.BaseRequest) -> float | None:
    """The caller's deadline in monotonic seconds, None where it has none. Raises InvalidRequest."""
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    found = TIMEOUT.fullmatch(given)
    if found is None:
        raise InvalidRequest(TIMEOUT_HEADER, "must be digits and a unit, such as 5S or 200m")
    return monotonic_s() + int(found[1]) * UNITS_S[found[2]]
