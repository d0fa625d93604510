"""etcd, kube-apiserver, and where they are given kube-controller-manager and kube-scheduler, as
processes.

On this machine's loopback (then it needs no root), or inside of a cluster's namespaces.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support import kube_audit
from tests.support.kube_tools import CONTROLLERS, binaries, missing
from tests.support.waiting import until

TOKEN = "admin-of-a-test"
SERVICES = "10.0.0.0/24"


@dataclass(frozen=True)
class Ports:
    api: int
    etcd: int
    etcd_peer: int
    controllers: int
    scheduler: int


class ControlPlane:
    """`enter`: the words before a command that make it run inside; `address`: of the API."""

    def __init__(
        self, folder: Path, ports: Ports, enter: Sequence[str] = (), address: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self.ports = ports
        self.address = address
        self.enter = enter
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    def start(self) -> None:
        """Returns once the API is ready and, with controllers, `default` has its account."""
        self._write_certificates()
        self.write_kubeconfig(self.kubeconfig, {"token": TOKEN})
        self.start_etcd()
        self.start_api()
        if not missing(CONTROLLERS):
            self._start_controllers()

    def _start_controllers(self) -> None:
        options = (
            "--kubeconfig",
            self.kubeconfig,
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        )
        certs = ("--cert-dir", self.folder / "certs")
        self.spawn(
            "kube-controller-manager",
            binaries() / "kube-controller-manager",
            *options,
            *certs,
            f"--secure-port={self.ports.controllers}",
            *("--service-account-private-key-file", self.folder / "sa.key"),
            *("--root-ca-file", self.folder / "ca.crt", "--use-service-account-credentials"),
        )
        scheduler = binaries() / "kube-scheduler"
        self.spawn(
            "kube-scheduler", scheduler, *options, *certs, f"--secure-port={self.ports.scheduler}"
        )
        self._wait("get", "serviceaccount", "default", "--namespace=default")

    def start_etcd(self) -> None:
        client, peer = (
            f"http://127.0.0.1:{port}" for port in (self.ports.etcd, self.ports.etcd_peer)
        )
        self.spawn(
            "etcd",
            *(binaries() / "etcd", "--data-dir", self.folder / "etcd", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )

    def start_api(self) -> None:
        """Also again, after a kill."""
        folder, inside = self.folder, bool(self.enter)
        self.spawn(
            "kube-apiserver",
            *(binaries() / "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.ports.etcd}"),
            f"--bind-address={'0.0.0.0' if inside else '127.0.0.1'}",  # noqa: S104 - no uplink
            *(f"--secure-port={self.ports.api}", f"--advertise-address={self.address}"),
            *("--tls-cert-file", folder / "api.crt", "--tls-private-key-file", folder / "api.key"),
            *("--client-ca-file", folder / "ca.crt", "--cert-dir", folder / "certs"),
            *("--kubelet-client-certificate", folder / "client.crt"),
            *("--kubelet-client-key", folder / "client.key"),
            *(
                "--kubelet-preferred-address-types=InternalIP",
                f"--service-cluster-ip-range={SERVICES}",
            ),
            f"--endpoint-reconciler-type={'lease' if inside else 'none'}",
            *("--service-account-key-file", folder / "sa.pub"),
            *("--service-account-signing-key-file", folder / "sa.key"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged"),
            *("--authorization-mode=Node,RBAC", "--token-auth-file", folder / "tokens.csv"),
            *kube_audit.options(folder),
        )
        self._wait("get", "--raw=/readyz")

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        """The ends of all parts' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{tail(log, 12)}" for log in logs)

    def reap(self) -> None:
        """All of it was ended from outside."""
        for process in self._processes:
            process.wait(10)

    def spawn(self, name: str, *command: str | Path, enter: Sequence[str] = ()) -> None:
        """Starts a part whose output goes to `<name>.log`; `enter` where it is not with us."""
        tied = () if self.enter else ("setpriv", "--pdeathsig", "KILL")
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*(enter or self.enter), *tied, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        self._processes.append(process)
        (self.folder / f"{name}.pid").write_text(str(process.pid))

    def write_kubeconfig(self, path: Path, user: dict[str, str], host: str = "127.0.0.1") -> None:
        server = {
            "server": f"https://{host}:{self.ports.api}",
            "certificate-authority": str(self.folder / "ca.crt"),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": server}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "user"}}],
            "current-context": "it",
        }
        path.write_text(yaml.safe_dump(config))

    def sign(self, name: str, subject: str, names: str) -> Path:
        """`<name>.crt` and `<name>.key`, by this cluster's authority; where, without the ending."""
        at = self.folder / name
        self._openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            subject,
            "-keyout",
            f"{at}.key",
            "-out",
            f"{at}.csr",
        )
        at.with_suffix(".ext").write_text(f"subjectAltName={names}\n")
        ca = self.folder / "ca"
        self._openssl(
            *(
                "x509",
                "-req",
                "-in",
                f"{at}.csr",
                "-days",
                "30",
                "-CAcreateserial",
                "-out",
                f"{at}.crt",
            ),
            *("-CA", f"{ca}.crt", "-CAkey", f"{ca}.key", "-extfile", f"{at}.ext"),
        )
        return at

    def _write_certificates(self) -> None:
        folder = self.folder
        (folder / "certs").mkdir()
        (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        self._openssl("genrsa", "-out", folder / "sa.key", "2048")
        self._openssl("rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")
        self._openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-subj",
                "/CN=test-ca",
                "-days",
                "30",
            ),
            *("-keyout", folder / "ca.key", "-out", folder / "ca.crt"),
        )
        names = "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:10.0.0.1"
        self.sign("api", "/CN=kube-apiserver", f"{names},IP:{self.address}")
        self.sign("client", "/O=system:masters/CN=kube-apiserver-kubelet-client", "DNS:client")

    def _wait(self, *arguments: str) -> None:
        command = [*self.enter, "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        until(
            lambda: subprocess.run(command, capture_output=True).returncode == 0,
            self.logs,
        )

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class process_of:  # noqa: N801 - reads as a function
    """A part of a control plane, by the file of its pid (of `nsenter`, where it is inside)."""

    def __init__(self, folder: Path, name: str) -> None:
        self.pid = int((folder / f"{name}.pid").read_text())

    def kill(self) -> None:
        """kill -9 of it and its children, and nothing of it is left."""
        with_children = [self.pid, *_children(self.pid)]
        for pid in reversed(with_children):
            os.kill(pid, signal.SIGKILL)


KUBECTL_S = 60.0
DELETED_S = 240.0
NUDGE_S = 5.0


def kubectl_command(plane: ControlPlane, *arguments: str | Path) -> list[str | Path]:
    """kubectl against an API on loopback."""
    return ["kubectl", "--kubeconfig", plane.kubeconfig, *arguments]


def kubectl(plane: ControlPlane, *arguments: str | Path, stdin: str | None = None) -> str:
    """Runs it; raises AssertionError with what it wrote."""
    done = subprocess.run(
        kubectl_command(plane, *arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=KUBECTL_S,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def delete_definitions(kubectl: list[str | Path], *arguments: str | Path) -> None:
    """`kubectl delete` of our definitions and of whatever else; raises AssertionError.

    Kubernetes may find that it cannot list the resources of a definition yet ("storage is
    (re)initializing", seen with 1.34), and tries again after pauses that double, for minutes; a
    change of the definition has it try at once.
    """
    process = subprocess.Popen(
        [*kubectl, "delete", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for nudge in range(int(DELETED_S / NUDGE_S)):
        try:
            said, _ = process.communicate(timeout=NUDGE_S)
        except subprocess.TimeoutExpired:
            of_ours = ("annotate", "crd", "--overwrite", "-l", "app.kubernetes.io/name=wml-serving")
            subprocess.run([*kubectl, *of_ours, f"nudge={nudge}"], capture_output=True, check=False)
            if missing(CONTROLLERS):
                finish_namespaces(kubectl)
        else:
            assert process.returncode == 0, f"{arguments}: {said}"
            return
    process.kill()
    raise AssertionError(f"{arguments}: not deleted in time: {process.communicate()[0]}")


def finish_namespaces(kubectl: list[str | Path]) -> None:
    """Empties the namespaces that are being deleted, and has them gone, as a controller would."""

    def run(*arguments: str, stdin: str | None = None) -> str:
        command = [*kubectl, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, text=True).stdout

    listed = run("api-resources", "--namespaced", "--verbs=list,delete", "-o=name").split()
    for item in json.loads(run("get", "namespaces", "-o=json"))["items"]:
        if item["status"]["phase"] == "Terminating":
            name = item["metadata"]["name"]
            run("delete", "--all", ",".join(listed), f"--namespace={name}", "--wait=false")
            item["spec"]["finalizers"] = []
            path = f"/api/v1/namespaces/{name}/finalize"
            run("replace", "--raw", path, "-f", "-", stdin=json.dumps(item))


@contextmanager
def installed(plane: ControlPlane, deploy: Path, overlay: str) -> Iterator[None]:
    """With an overlay of `deploy`, and our definitions, for as long as the context lasts."""
    kubectl(plane, "apply", "--server-side", "-k", deploy / "crds")
    name = "app.kubernetes.io/name=wml-serving"
    kubectl(plane, "wait", "--for=condition=Established", "crd", "-l", name)
    everything = deploy / "overlays" / overlay
    kubectl(plane, "apply", "--server-side", "--validate=strict", "-k", everything)
    yield
    for folder in (everything, deploy / "crds"):
        delete_definitions(kubectl_command(plane), "--ignore-not-found", "-k", folder)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log; nothing where it is not."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
