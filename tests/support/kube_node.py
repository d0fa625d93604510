"""A node of a cluster in a box: containerd, kubelet and kube-proxy in namespaces of Linux.

The first node is where the control plane is. Any other has a network, mounts and processes of its
own within the first one's; when its first process ends, all of it ends.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support import kube_tools
from tests.support.kube_control_plane import ControlPlane
from tests.support.kube_node_config import Place, write_node_config
from tests.support.waiting import until

KEPT_BY_OTHERS = ("/run/netns", "/run/containerd", "/var/lib/cni", "/var/log/containers")


class Node:
    """`enter`: the words before a command that make it run on the node."""

    def __init__(self, place: Place, plane: ControlPlane, enter: Sequence[str]) -> None:
        self.place = place
        self._plane = plane
        self.enter = enter

    @property
    def name(self) -> str:
        return self.place.name

    def start(self, archives: Sequence[Path]) -> None:
        """Returns once it is Ready and has the images; its network is there already."""
        for command in (
            "sysctl -qw net.ipv4.ip_forward=1",
            # Where containerd and CNI keep files whatever they are told: none is another's.
            *(f"mkdir -p {path}" for path in KEPT_BY_OTHERS),
            *(f"mount -t tmpfs private {path}" for path in KEPT_BY_OTHERS),
        ):
            self.run(*command.split())
        for hierarchy in hierarchies():
            (hierarchy / self.place.group).mkdir(exist_ok=True)
        config = write_node_config(self.place, self._plane)
        self._spawn("containerd", "containerd", "-c", config.containerd)
        until(lambda: self._answers(*self._ctr, "version"), self._plane.logs)
        self.take_images(archives)
        binaries = kube_tools.binaries()
        self._spawn("kubelet", binaries / "kubelet", *config.kubelet)
        self._spawn("kube-proxy", binaries / "kube-proxy", *config.proxy)
        if self.place.number == 1:
            self._spawn("coredns", binaries / "coredns", "-conf", config.corefile)
        kubectl = ("kubectl", "--kubeconfig", self.place.folder / "proxy.kubeconfig")
        node = f"node/{self.name}"
        until(lambda: self._answers(*kubectl, "get", node), self._plane.logs)
        self.run(*kubectl, "wait", "--for=condition=Ready", node, "--timeout=60s", timeout_s=70)

    def run(self, *arguments: str | Path, timeout_s: float = 60) -> str:
        """Runs a command on the node; what it wrote. Raises AssertionError with all of it."""
        command = [*self.enter, *map(str, arguments)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def take_images(self, archives: Sequence[Path]) -> None:
        for archive in archives:
            self.run(*self._ctr, "image", "import", archive, timeout_s=180)

    @property
    def _ctr(self) -> tuple[str | Path, ...]:
        return ("ctr", "-a", self.place.folder / "containerd.sock", "-n", "k8s.io")

    def _spawn(self, part: str, *command: str | Path) -> None:
        name = part if self.place.number == 1 else f"{part}-{self.name}"
        self._plane.spawn(name, *command, enter=self.enter)

    def _answers(self, *arguments: str | Path) -> bool:
        command = [*self.enter, *map(str, arguments)]
        return subprocess.run(command, capture_output=True).returncode == 0


class JoinedNode(Node):
    """Any node but the first: a cable, a pair of `veth`, leads to that one."""

    def __init__(self, place: Place, plane: ControlPlane, first: Node) -> None:
        shutil.rmtree(place.folder, ignore_errors=True)
        place.folder.mkdir()
        self._process, self.pid = enter_namespaces(place.folder, first.enter)
        super().__init__(place, plane, entering(self.pid))
        self._first = first

    def join(self) -> None:
        """Lays the cable, with routes to its pods and from them to everything else."""
        here, there = self.place, self._first.place
        status = Path(f"/proc/{self.pid}/status").read_text()
        (pids,) = [line.split() for line in status.splitlines() if line.startswith("NSpid:")]
        for command in (
            f"ip link add {here.name} type veth peer name {there.name} netns {pids[-2]}",
            f"ip addr add {there.ip} peer {here.ip}/32 dev {here.name}",
            f"ip link set {here.name} up",
            f"ip route add {here.pods} via {here.ip} src {there.ip}",
        ):
            self._first.run(*command.split())
        for command in (
            "ip link set lo up",
            f"ip addr add {here.ip} peer {there.ip}/32 dev {there.name}",
            f"ip link set {there.name} up",
            f"ip route add default via {there.ip}",
        ):
            self.run(*command.split())

    def kill(self) -> None:
        """As by a loss of power: nothing more is heard of it, not even that connections end.

        What is sent to it vanishes: the cable leads to nobody.
        """
        here, there = self.place, self._first.place
        self.unplug()
        for command in (
            f"ip link add {here.name} type veth peer name {here.name}p",
            f"ip link set {here.name}p up",
            f"ip addr add {there.ip} peer {here.ip}/32 dev {here.name}",
            f"ip link set {here.name} up",
            f"ip neigh replace {here.ip} lladdr 02:00:00:00:00:02 nud permanent dev {here.name}",
            f"ip route add {here.pods} via {here.ip} src {there.ip}",
        ):
            self._first.run(*command.split())
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def unplug(self) -> None:
        """Takes away the cable."""
        self._first.run("ip", "link", "del", self.name)


def enter_namespaces(
    folder: Path, before: Sequence[str], kept_open: Sequence[int] = ()
) -> tuple[subprocess.Popen[bytes], int]:
    """A process with a network, mounts and processes of its own; how it was started, and its pid.

    The pid is as this machine counts. Whoever holds `kept_open` is inside.
    """
    entered = folder / "entered"
    command = [
        *before,
        *("unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork"),
        *("--kill-child=KILL", "--mount-proc"),
        *("sh", "-c", f"echo 1 > {entered}; exec sleep infinity"),
    ]
    with (folder / "unshare.log").open("w") as log:
        outer = subprocess.Popen(
            command,
            pass_fds=kept_open,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    until(entered.exists, lambda: "no namespaces: " + (folder / "unshare.log").read_text())
    return outer, _last_child(outer.pid)


def entering(pid: int) -> list[str]:
    """The words before a command that make it run where that process is."""
    return ["nsenter", f"--wd={Path.cwd()}", "-t", str(pid), "-n", "-m", "-p", "--"]


def hierarchies() -> list[Path]:
    """Of control groups."""
    return [top for top in Path("/sys/fs/cgroup").iterdir() if top.is_dir()]


def _last_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return _last_child(int(children[0])) if children else pid
