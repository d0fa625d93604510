"""A cluster in a box: Kubernetes with one real node, in namespaces of Linux without an uplink.

Everything runs below one `unshare`: when its first process ends, however it ends, the kernel ends
all others with it, and with them go the mounts, the network and its addresses. What is left then
(control groups, a folder, four kernel settings) is swept by `down` and by the next start.
Several clusters run side by side: names, folders and control groups are each one's own.

`python -m tests.support.kube_cluster up|down|images|kubectl` is for developers.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support import kube_images, kube_tools
from tests.support.kube_control_plane import ControlPlane, Ports, process_of
from tests.support.kube_node import JoinedNode, Node, enter_namespaces, entering, hierarchies
from tests.support.kube_node_config import Place
from tests.support.waiting import until

PREFIX = "wml-kube-"
PARENT = Path(tempfile.gettempdir())
DEVELOPERS = "developer"
SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
PROGRAMS = (
    "containerd",
    "runc",
    "iptables",
    "conntrack",
    "unshare",
    "nsenter",
    "setpriv",
    "openssl",
    "kubectl",
)
CNI = Path("/usr/lib/cni/bridge")
PORTS = Ports(api=6443, etcd=2379, etcd_peer=2380, controllers=10257, scheduler=10259)


def unable() -> str:
    """Why no cluster can be had on this machine, in one line; empty where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "it wants Linux and root"
    if absent := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"{', '.join(absent)} not found; apt-get install {kube_tools.PACKAGES}"
    if not CNI.exists():
        return f"no {CNI}; apt-get install {kube_tools.PACKAGES}"
    if absent := kube_tools.missing(kube_tools.CONTROL_PLANE + kube_tools.NODE):
        return f"no {', '.join(absent)} in {kube_tools.binaries()}; make kube-tools"
    return ""


class Cluster:
    """`name` keeps it apart from others; `kubectl` and `run` work inside of its network."""

    def __init__(self, name: str, *, is_tied: bool = True) -> None:
        self.name = name
        self.folder = PARENT / f"{PREFIX}{name}"
        # Tied: it ends with the process that started it, even one that is killed.
        self._is_tied = is_tied
        self._outer: subprocess.Popen[bytes] | None = None
        self.place = Place(1, self.folder, self.folder.name)
        self.plane = ControlPlane(self.folder, PORTS, address=self.place.ip)
        self.nodes: list[Node] = []

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def pid(self) -> int:
        """The first process inside, as this machine counts."""
        return int((self.folder / "pid").read_text())

    def up(self) -> None:
        """Returns once the node is Ready and names resolve."""
        sweep()
        archives = kube_images.pack()
        self.folder.mkdir()
        _remember_settings()
        self._enter_namespaces()
        try:
            self._start(archives)
        except BaseException:
            self.down(keep_logs=True)
            raise

    def down(self, *, keep_logs: bool = False) -> None:
        """Ends everything, at once, and takes away what it left."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(self.pid, signal.SIGKILL)
        until(lambda: _is_free(self.folder), lambda: f"{self.folder} is still used")
        self.plane.reap()
        if self._outer is not None:
            self._outer.wait(10)
        if keep_logs:
            kept = self.folder.with_name(f"kept-{self.folder.name}")
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            for log in self.folder.glob("*.log"):
                shutil.copy(log, kept)
        sweep()

    def command(self, *arguments: str | Path) -> list[str]:
        """The command, to be run inside."""
        return [*entering(self.pid), *map(str, arguments)]

    def run(self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60) -> str:
        """Runs a command inside; what it wrote. Raises AssertionError with all of it."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout_s
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def kubectl(
        self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60
    ) -> str:
        return self.run(
            "kubectl", "--kubeconfig", self.kubeconfig, *arguments, stdin=stdin, timeout_s=timeout_s
        )

    @contextlib.contextmanager
    def process(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on inside, such as a port-forward, until the block ends."""
        command = self.command(*arguments)
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as one:
            try:
                yield one
            finally:
                os.killpg(one.pid, signal.SIGTERM)  # nsenter has it as a child

    def logs(self) -> str:
        """The ends of all parts' logs."""
        return self.plane.logs()

    def take_images(self, archives: Sequence[Path]) -> None:
        """Also later, of a changed checkout; pods have them at their next start."""
        for node in self.nodes or [Node(self.place, self.plane, self.command())]:
            node.take_images(archives)

    def add_node(self) -> JoinedNode:
        """Another node of the running cluster, Ready and with the images."""
        first = self.nodes[0]
        number = first.place.number + len(self.nodes)
        name = f"node{number}"
        place = Place(number, self.folder / name, f"{self.place.group}/{name}")
        node = JoinedNode(place, self.plane, first)
        self.nodes.append(node)
        node.join()
        node.start(kube_images.pack())
        return node

    def remove_node(self, node: JoinedNode) -> None:
        """Ends it, where it still lives, and has the cluster forget it and its pods."""
        node.kill()
        node.unplug()
        self.nodes.remove(node)
        pods = ("delete", "pods", "--all-namespaces", f"--field-selector=spec.nodeName={node.name}")
        self.kubectl(*pods, "--force", "--grace-period=0")
        self.kubectl("delete", "node", node.name, "--ignore-not-found")

    def groups(self) -> list[Path]:
        """Its control groups."""
        return _groups(self.folder.name)

    def kill(self, program: str) -> None:
        """kill -9 of a part, by the name of its binary."""
        process_of(self.folder, program).kill()

    def _enter_namespaces(self) -> None:
        with (self.folder / "lock").open("w") as lock:  # held by those inside from then on
            fcntl.flock(lock, fcntl.LOCK_EX)
            tied = ("setpriv", "--pdeathsig", "KILL") if self._is_tied else ()
            self._outer, pid = enter_namespaces(self.folder, tied, [lock.fileno()])
        (self.folder / "pid").write_text(str(pid))

    def _start(self, archives: Sequence[Path]) -> None:
        for line in (
            "ip link set lo up",
            # It carries the node's address: there is no `dummy` everywhere.
            "ip link add node0 type veth peer name node0p",
            "ip link set node0p up",
            f"ip addr add {self.place.ip}/32 dev node0",
            "ip link set node0 up",
            "ip route add default dev node0",
        ):
            self.run(*line.split())
        self.plane.enter = self.command()
        self.plane.start()
        first = Node(self.place, self.plane, self.command())
        first.start(archives)
        self.nodes = [first]
        self._add_names()

    def _add_names(self) -> None:
        """The Service of the DNS, and a folder for the one volume that may be claimed at a time."""
        metadata = {"namespace": "kube-system"}
        ports = [
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "tcp", "port": 53, "protocol": "TCP"},
        ]
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**metadata, "name": "kube-dns"},
            "spec": {"clusterIP": "10.0.0.10", "ports": ports},
        }
        endpoints = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                **metadata,
                "name": "kube-dns-1",
                "labels": {"kubernetes.io/service-name": "kube-dns"},
            },
            "addressType": "IPv4",
            "ports": ports,
            "endpoints": [{"addresses": [self.place.ip]}],
        }
        volumes = [self._volume(number) for number in range(20)]
        items = {"apiVersion": "v1", "kind": "List", "items": [service, endpoints, *volumes]}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def _volume(self, number: int) -> dict[str, object]:
        """As a cluster's admin would provide them."""
        path = self.folder / "volumes" / str(number)
        path.mkdir(parents=True)
        path.chmod(0o777)  # a hostPath is not given to fsGroup
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"volume-{number}"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(path)},
            },
        }


def sweep() -> None:
    """Takes away what ended clusters left: control groups, folders, the kernel's settings."""
    for folder in PARENT.glob(f"{PREFIX}*"):
        if not folder.is_dir() or not (folder / "lock").exists() or not _is_free(folder):
            continue
        for top in _groups(folder.name):
            for group in sorted(top.rglob("*"), key=lambda path: -len(path.parts)):
                if group.is_dir():
                    with contextlib.suppress(OSError):
                        group.rmdir()
            with contextlib.suppress(OSError):
                top.rmdir()
        shutil.rmtree(folder, ignore_errors=True)
    saved = PARENT / "wml-kube-settings.json"
    if saved.exists() and not any(path.is_dir() for path in PARENT.glob(f"{PREFIX}*")):
        for name, value in json.loads(saved.read_text()).items():
            Path("/proc/sys", name).write_text(value)
        saved.unlink()


def _groups(name: str) -> list[Path]:
    """The control group of that name in each hierarchy."""
    return [top / name for top in hierarchies() if (top / name).exists()]


def _remember_settings() -> None:
    """What a kubelet changes of the kernel, to be put back once no cluster is left."""
    saved = PARENT / "wml-kube-settings.json"
    if not saved.exists():
        found = {name: Path("/proc/sys", name).read_text() for name in SETTINGS}
        saved.write_text(json.dumps(found))


def _is_free(folder: Path) -> bool:
    """Whether nobody inside holds the lock any more."""
    if not (folder / "lock").exists():
        return True
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def main(arguments: Sequence[str]) -> None:
    cluster = Cluster(DEVELOPERS, is_tied=False)
    match arguments:
        case ["up"]:
            if why := unable():
                raise SystemExit(f"kube-up: no cluster here: {why}")
            cluster.up()
            inside = " ".join(cluster.command("kubectl", "--kubeconfig", cluster.kubeconfig))
            print(f"The cluster is up. Inside of it:\n  {inside} get pods -A")
        case ["down"]:
            cluster.down()
        case ["images"]:
            cluster.take_images(kube_images.pack())
        case ["kubectl", *rest]:
            command = cluster.command("kubectl", "--kubeconfig", cluster.kubeconfig, *rest)
            raise SystemExit(subprocess.run(command).returncode)
        case _:
            raise SystemExit("up, down, images or kubectl …")


if __name__ == "__main__":
    main(sys.argv[1:])
