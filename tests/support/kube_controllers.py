"""Processes of `wml-serving controller` beside an API server on loopback, each with its own token.

What is installed is `deploy/overlays/default`; the mesh is wherever `management` leads.
"""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from mesh.controller.names import CONTROLLER
from tests.support.kube_audit import NAMESPACE, Call, calls, credential_of
from tests.support.kube_control_plane import ControlPlane, kubectl
from tests.support.ports import free_ports
from tests.support.stand import ROOT
from tests.support.waiting import until

ENDS_S = 20.0


@dataclass
class ControllerProcess:
    """One life; `start` begins it. `credential` is that of its token, see `kube_audit`."""

    plane: ControlPlane
    folder: Path
    name: str
    management: str
    credential: str = field(default="", init=False)
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _doors: list[str] = field(default_factory=list, init=False)

    def start(self) -> None:
        """Does not wait."""
        self._doors = [f"127.0.0.1:{port}" for port in free_ports(2)]
        health, metrics = self._doors
        config = self.folder / f"{self.name}.kubeconfig"
        token = kubectl(self.plane, "-n", NAMESPACE, "create", "token", CONTROLLER).strip()
        self.credential = credential_of(token)
        self.plane.write_kubeconfig(config, {"token": token})
        command = [
            *(sys.executable, "-m", "router", "controller", f"--namespace={NAMESPACE}"),
            *(f"--name={self.name}", f"--kubeconfig={config}", f"--management={self.management}"),
            *(f"--health={health}", f"--metrics={metrics}"),
        ]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    @property
    def log_file(self) -> Path:
        return self.folder / f"{self.name}.log"

    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_ready(self) -> bool:
        """By its own word, on /readyz."""
        return self._get(self._doors[0], "readyz") is not None

    @property
    def is_leading(self) -> bool:
        return bool(self.metric("wml_controller_leading"))

    def metric(self, name: str) -> float:
        """The sum of its samples, zero while its doors are closed."""
        text = self._get(self._doors[1], "metrics") or ""
        samples = [it for family in text_string_to_metric_families(text) for it in family.samples]
        return sum(it.value for it in samples if it.name == name)

    def until_leading(self, deadline_s: float = 60.0) -> None:
        until(lambda: self.is_leading and self.is_ready, self.log, deadline_s)

    def calls(self) -> list[Call]:
        """All that it asked of the API server."""
        return calls(self.plane.folder, self.credential)

    def memory_bytes(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu_s(self) -> float:
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Waits for its end; its exit status."""
        assert self.process is not None
        return self.process.wait(ENDS_S)

    def stop(self) -> None:
        """Also one that is frozen."""
        if self.is_running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.ended()

    @staticmethod
    def _get(door: str, path: str) -> str | None:
        """None where it does not answer, or not with 200."""
        try:
            with urllib.request.urlopen(f"http://{door}/{path}", timeout=2) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, TimeoutError):
            return None
