"""A network that loses packets: each node in a network namespace of its own, one bridge between.

Whoever lives at an address is started with the prefix that `enter` returns. A cut drops, in the
kernel of each end, what comes from the other: nobody is told, nothing is reset. The client of the
tests is at `CLIENT`, on the bridge itself.

All of it is inside of one `unshare` with a pytest of its own (`run_inside`): when that ends,
however it ends, the kernel takes away processes, interfaces, rules and mounts.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "iptables", "mount")
# Debian's packages of those that are not on every machine.
PACKAGES = "iproute2 iptables"
SUBNET = "10.77.0"
CLIENT = f"{SUBNET}.1"
BRIDGE = "mesh"
ALONE = (
    *("unshare", "--net", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
)
# The network namespace of who started the pytest inside; what differs from it may be changed.
OUTER = "WML_LAB_OUTER_NET"
TRY = """ip link add bridge0 type bridge &&
ip link add veth0 type veth peer veth1 &&
iptables -w -A INPUT -s 10.0.0.1 -j DROP"""


def unable() -> str:
    """Why there is no such network on this machine, in one line; empty where there is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces want Linux and root"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not found; apt-get install {PACKAGES}"
    tried = subprocess.run([*ALONE, "sh", "-c", TRY], capture_output=True, text=True)
    said = (tried.stderr.strip() or f"status {tried.returncode}").splitlines()[-1]
    return f"no namespaces, bridge or iptables: {said}" if tried.returncode else ""


def is_inside() -> bool:
    outer = os.environ.get(OUTER)  # noqa: TID251 - told by `run_inside` to its own kind
    return outer is not None and outer != _own_network()


def run_inside(test: str, options: Sequence[str]) -> str:
    """Runs one test by its node id, alone in its network; what it wrote if it did not pass."""
    pytest = [sys.executable, "-m", "pytest", test, "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", *ALONE, *pytest],
        env={**os.environ, OUTER: _own_network()},  # noqa: TID251 - handed on
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else f"status {done.returncode}\n{done.stdout}{done.stderr}"


class Lab:
    """The bridge, and one place for each address that was entered. Only inside."""

    subnet = SUBNET

    def __init__(self) -> None:
        assert is_inside(), "the network of this machine is not ours to change"
        # A /run of our own: names of namespaces, and the lock of iptables.
        _run("mount", "-t", "tmpfs", "private", "/run")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "add", f"{CLIENT}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        self._places: set[str] = set()

    def enter(self, host: str) -> list[str]:
        """What a command begins with that is to run where this address is."""
        if host not in self._places:
            self._places.add(host)
            self._make(host)
        return ["nsenter", f"--net=/run/netns/{host}", "--"]

    def cut(self, one: str, *others: str) -> None:
        """Packets between the one address and each of the others are dropped, both ways."""
        for other in others:
            for here, there in ((one, other), (other, one)):
                self._in(here, "iptables", "-w", "-A", "INPUT", "-s", there, "-j", "DROP")

    def heal(self) -> None:
        for place in self._places:
            self._in(place, "iptables", "-w", "-F", "INPUT")

    def dropped(self) -> dict[tuple[str, str], int]:
        """How many packets were dropped since the cut, by where they came from and went to."""
        return {
            (there, here): packets
            for here in self._places
            for there, packets in _listed(self._in(here, "iptables", "-w", "-nvxL", "INPUT"))
        }

    def _make(self, host: str) -> None:
        cable = f"to-{host.rpartition('.')[2]}"
        _run("ip", "netns", "add", host)
        _run("ip", "link", "add", cable, "type", "veth", "peer", "eth0", "netns", host)
        _run("ip", "link", "set", cable, "master", BRIDGE, "up")
        for command in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "addr", "add", f"{host}/24", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
        ):
            self._in(host, *command)

    def _in(self, host: str, *command: str) -> str:
        return _run(*self.enter(host), *command)


def _listed(listing: str) -> Iterator[tuple[str, int]]:
    for line in listing.splitlines():
        if found := re.match(r"\s*(\d+)\s+\d+\s+DROP\s+\S+\s+\S+\s+\S+\s+\S+\s+(\S+)", line):
            yield found[2], int(found[1])


def _own_network() -> str:
    return str(Path("/proc/self/ns/net").readlink())


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
