"""A proxy before an object store that counts the GETs of objects, holds them at a gate, and spoils
them on request. Threads and sockets of its own: it needs no event loop and blocks none.

The Host header is passed on as it came, so that signatures stay valid.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Literal
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
DEADLINE_S = 30.0
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})
Spoiled = Literal["flip", "cut"]


@dataclass
class _Rules:
    """What the handlers look at, all of it under `changed`."""

    upstream: tuple[str, int]
    changed: Condition = field(default_factory=Condition)
    gets: list[str] = field(default_factory=list)
    headers: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    held: int = 0
    gates: set[str] = field(default_factory=set)
    spoiled: dict[str, tuple[Spoiled, int]] = field(default_factory=dict)
    when_cut: Callable[[], None] = lambda: None
    ignored: frozenset[str] = frozenset()
    dropped: int = 0
    replaced: dict[bytes, bytes] = field(default_factory=dict)

    def is_shut(self, path: str) -> bool:
        return any(gate in path for gate in self.gates)

    def arrived(self, path: str, headers: dict[str, str]) -> None:
        """Counts a GET of an object, and comes back when no gate is before it."""
        with self.changed:
            self.gets.append(path)
            self.headers.append((path, headers))
            self.held += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: not self.is_shut(path))
            self.held -= 1
            self.changed.notify_all()

    def take_drop(self) -> bool:
        with self.changed:
            self.dropped -= 1
            return self.dropped >= 0

    def take_spoiling(self, path: str) -> Spoiled | None:
        with self.changed:
            for part, (how, times) in self.spoiled.items():
                if part in path and times > 0:
                    self.spoiled[part] = (how, times - 1)
                    return how
        return None


class GatedProxy:
    """Listens while it is used as a context manager; `endpoint_url` is what clients get."""

    def __init__(self, upstream_url: str, host: str = HOST) -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._rules = _Rules((parts.hostname, parts.port))
        self._server = _Server((host, 0), self._rules)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def endpoint_url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host}:{port}"

    def __enter__(self) -> "GatedProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()  # ends the connections and waits for their threads

    def gets(self, key: str) -> int:
        """How many GETs of the object `key` (with or without its bucket) came, held ones too."""
        with self._rules.changed:
            return sum(path.endswith(f"/{key}") for path in self._rules.gets)

    def headers(self, key: str, name: str) -> list[str]:
        """What each GET of the object `key` had in the header `name` (lower case), or nothing."""
        with self._rules.changed:
            seen = [headers for path, headers in self._rules.headers if path.endswith(f"/{key}")]
        return [headers.get(name, "") for headers in seen]

    def hold(self, path_substring: str) -> None:
        """From now on GETs of objects whose `/bucket/key` contains this wait for `release`."""
        with self._rules.changed:
            self._rules.gates.add(path_substring)

    def release(self, path_substring: str | None = None) -> None:
        """Opens one gate, or all of them."""
        with self._rules.changed:
            gates = self._rules.gates
            gates.clear() if path_substring is None else gates.discard(path_substring)
            self._rules.changed.notify_all()

    def wait_for_held(self, count: int = 1) -> None:
        """Until so many GETs stand at a gate. Blocking: from a test's loop use `to_thread`."""
        with self._rules.changed:
            came = self._rules.changed.wait_for(lambda: self._rules.held >= count, DEADLINE_S)
        assert came, f"fewer than {count} GETs held after {DEADLINE_S} s"

    def spoil(self, path_substring: str, how: Spoiled, times: int = 1_000) -> None:
        """Flips a bit of the next so many GETs' bodies, or cuts them in half."""
        with self._rules.changed:
            self._rules.spoiled[path_substring] = (how, times)

    def when_cut(self, act: Callable[[], None]) -> None:
        """`act` is called between the half of a body that is cut, and the connection's end."""
        with self._rules.changed:
            self._rules.when_cut = act

    def ignore_ranges(self) -> None:
        """From now on objects come whole, whatever is asked for."""
        with self._rules.changed:
            self._rules.ignored = frozenset({"range"})

    def drop_listings(self, times: int) -> None:
        """Ends the connections of the next so many listings without an answer."""
        with self._rules.changed:
            self._rules.dropped = times

    def replace_in_listings(self, old: bytes, new: bytes) -> None:
        """Makes listings lie, such as about names that the store itself would not take."""
        assert len(old) == len(new)
        with self._rules.changed:
            self._rules.replaced[old] = new


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], rules: _Rules) -> None:
        super().__init__(address, _Handler)
        self.rules = rules
        self._connections = set[socket.socket]()

    def process_request(self, request, client_address) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is none of ours: what it saw is for the test to say."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass_on(self) -> None:
        rules = self.server.rules
        url = urlsplit(self.path)
        path = unquote(url.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        is_object = self.command == "GET" and path.count("/") > 1 and not path.endswith("/")
        if "list-type" in url.query and rules.take_drop():
            self.close_connection = True
            return
        if is_object:
            rules.arrived(path, {name.lower(): value for name, value in self.headers.items()})
        with self._asked(body) as answer:
            if is_object:
                self._answer(answer, rules.take_spoiling(path))
            elif "list-type" in url.query:
                self._answer_listing(answer)
            else:
                self._answer(answer, None)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815

    @contextlib.contextmanager
    def _asked(self, body: bytes) -> Iterator[HTTPResponse]:
        upstream = HTTPConnection(*self.server.rules.upstream, timeout=DEADLINE_S)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | self.server.rules.ignored:
                    upstream.putheader(name, value)
            upstream.endheaders(body or None)
            with upstream.getresponse() as answer:
                yield answer
        finally:
            upstream.close()

    def _answer(self, answer: HTTPResponse, how: Spoiled | None) -> None:
        length = answer.getheader("Content-Length")
        content = None if length is not None else answer.read()
        self._head(answer, length or str(len(content or b"")))
        if content is not None:
            self.wfile.write(content)
            return
        left = int(length or 0) // 2 if how == "cut" else None
        while chunk := answer.read(65536 if left is None else min(left, 65536)):
            if how == "flip":
                chunk, how = bytes([chunk[0] ^ 1]) + chunk[1:], None
            self.wfile.write(chunk)
            if left is not None:
                left -= len(chunk)
        if how == "cut":
            self.server.rules.when_cut()
            self.close_connection = True

    def _answer_listing(self, answer: HTTPResponse) -> None:
        content = answer.read()
        for old, new in self.server.rules.replaced.items():
            content = content.replace(old, new)
        self._head(answer, str(len(content)))
        self.wfile.write(content)

    def _head(self, answer: HTTPResponse, length: str) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing: pytest's output is for tests."""
