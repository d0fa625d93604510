"""Ports for servers of tests that have to know theirs before they start."""

import random
import socket

# Below those that Linux gives to clients: neither another test's connection takes one before its
# server starts, nor while a server that was killed is started again.
SERVERS = range(22_000, 32_000)


def free_ports(count: int) -> list[int]:
    """On 127.0.0.1, by chance, so that tests that run side by side hardly meet."""
    found: list[int] = []
    for port in random.sample(SERVERS, 200):
        if _is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free port")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
