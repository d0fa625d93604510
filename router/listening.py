"""The sockets of a port of this process: how a server leaves its clients without losing a call.

gRPC can stop only as a whole: a call that has come in but whose handler has not begun is cancelled
then. So a server that others can take over from first takes no more connections, and lets those
that it has grow old: gRPC ends each at its age in a way that loses nothing, and clients connect
elsewhere. Then it stops. gRPC has no call for the first step; the kernel has: a listening socket
that is shut down refuses connections, and leaves those that it accepted alone. Linux only;
elsewhere nothing happens, and the server stops as ever.
"""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

DESCRIPTORS = Path("/proc/self/fd")


def refuse_connections(port: int) -> None:
    """From now on connections to the port are refused; those that exist stay."""
    for found in _sockets(port):
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.shutdown(socket.SHUT_RDWR)


def connections(port: int) -> int:
    """How many connections that came in by the port are open."""
    return sum(_has_peer(found) for found in _sockets(port))


def _has_peer(found: socket.socket) -> bool:
    """A listening socket that was shut down does not listen any more, and has none either."""
    try:
        found.getpeername()
    except OSError:
        return False
    return True


def _sockets(port: int) -> Iterator[socket.socket]:
    """The sockets of this process that are bound to the port."""
    if not DESCRIPTORS.is_dir():
        return
    for entry in list(DESCRIPTORS.iterdir()):
        try:
            is_socket = entry.readlink().as_posix().startswith("socket:")
            descriptor = os.dup(int(entry.name)) if is_socket else -1
        except OSError:
            continue  # closed meanwhile
        if descriptor < 0:
            continue
        with socket.socket(fileno=descriptor) as found:
            if _is_at(found, port):
                yield found


def _is_at(found: socket.socket, port: int) -> bool:
    try:
        is_internet = found.family in (socket.AF_INET, socket.AF_INET6)
        return is_internet and found.getsockname()[1] == port
    except OSError:
        return False
