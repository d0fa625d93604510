"""What a cluster in a box needs of the system, from Debian's packages.

`python -m tests.support.kube_packages` installs what is missing, as root and with apt-get;
elsewhere it says what is left out, and why.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

BRIDGE = "/usr/lib/cni/bridge"
# A program, or a file, by the package that has it.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    BRIDGE: "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "kubectl": "kubernetes-client",
}

Run = Callable[[Sequence[str]], str]


def missing(folders: str | None = None) -> list[str]:
    """The packages whose programs are not there; `folders` as in PATH."""
    return [
        package
        for program, package in PACKAGES.items()
        if not (Path(program).exists() if "/" in program else shutil.which(program, path=folders))
    ]


def install(wanted: Sequence[str], *, is_root: bool, has_apt: bool, run: Run) -> str:
    """What came of it, in one line; empty where nothing is wanted."""
    if not wanted:
        return ""
    names = " ".join(wanted)
    if not is_root or not has_apt:
        why = "there is no apt-get" if is_root else "only root can install it"
        return f"tests on a real node are skipped, {names} is not installed and {why}"
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", *wanted]):
        if said := run(command):
            return f"tests on a real node are skipped, {' '.join(command)} failed: {said}"
    return f"installed {names}"


def _run(command: Sequence[str]) -> str:
    """The last line that it wrote where it failed."""
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}  # noqa: TID251 - handed on
    options = ["-qq", "--no-install-recommends"] if "install" in command else ["-qq"]
    done = subprocess.run([*command, *options], env=environ, capture_output=True, text=True)
    lines = (done.stderr.strip() or f"status {done.returncode}").splitlines()
    return lines[-1] if done.returncode else ""


if __name__ == "__main__":
    said = install(
        missing(),
        is_root=os.geteuid() == 0,
        has_apt=shutil.which("apt-get") is not None,
        run=_run,
    )
    if said:
        print(f"kube-packages: {said}")
