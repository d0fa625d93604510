"""Where a gRPC server listens, one socket address at a time.

gRPC resolves a host name itself and is content with one of its addresses: `localhost:8033` would
come up on ::1 alone where another program has 127.0.0.1:8033, and that one would get the requests.
"""

import ipaddress
import socket
from collections.abc import Callable


def bind_all(bind: Callable[[str], int], address: str) -> int:
    """Calls `bind` for every socket address of `address`; the port, the same for all.

    `bind` takes `host:port` and says which port it got. Raises OSError where the name is not known,
    and whatever `bind` raises.
    """
    host, _, port = address.rpartition(":")
    if not _is_name(host):
        return bind(address)
    first, *others = _hosts(host)
    bound = bind(f"{first}:{port}")
    for other in others:
        bind(f"{other}:{bound}")
    return bound


def _is_name(host: str) -> bool:
    """Whether there is anything to resolve: `[::1]`, `0.0.0.0` and `unix` stand for themselves."""
    if not host or host.startswith("[") or ":" in host or host == "unix":
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def _hosts(name: str) -> list[str]:
    """The addresses of a name, as they stand before a port; those that this machine has."""
    found = {info[4][0]: info[0] for info in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)}
    hosts = [
        f"[{host}]" if family is socket.AF_INET6 else str(host)
        for host, family in found.items()
        if _is_ours(str(host), family)
    ]
    if not hosts:
        raise OSError(f"{name} is none of this machine's addresses")
    return hosts


def _is_ours(host: str, family: socket.AddressFamily) -> bool:
    """Whether a socket can have this address; `::1` stands in many a hosts file without IPv6."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True
