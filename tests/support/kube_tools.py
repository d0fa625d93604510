"""The binaries of Kubernetes, etcd and CoreDNS, built from Go modules into a cache.

`python -m tests.support.kube_tools` builds what is missing (12 minutes on two cores, once). Where
`KUBEBUILDER_ASSETS` names a folder with kube-apiserver and etcd, that is used as it is, which is
enough for the tests on an API server alone.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

VERSION = "1.34.4"  # later kubelets are said to refuse hybrid cgroups
COREDNS = "v1.15.0"
API = ("kube-apiserver", "etcd")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
CONTROL_PLANE = API + CONTROLLERS
NODE = ("kubelet", "kube-proxy", "coredns", "pause")
COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
PACKAGES = "containerd runc containernetworking-plugins iproute2 iptables conntrack"
PAUSE = """package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	<-ends
}
"""


class Failed(Exception):
    """Go did not build it; it wrote why."""


def cache(environ: Mapping[str, str] = os.environ) -> Path:  # noqa: TID251 - tools have no settings
    """Where everything of this version is kept."""
    above = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(above) / "wml-serving/kube" / VERSION


def binaries(environ: Mapping[str, str] = os.environ) -> Path:  # noqa: TID251
    """The folder of the binaries, whether they are there or not."""
    given = environ.get("KUBEBUILDER_ASSETS")
    return Path(given) if given else cache(environ) / "bin"


def missing(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not (binaries() / name).exists()]


def build() -> None:
    """Builds what is missing; one build at a time, each binary there wholly or not at all."""
    if os.environ.get("KUBEBUILDER_ASSETS"):  # noqa: TID251
        return
    folder = cache()
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        wanted = missing(CONTROL_PLANE + NODE)
        if any(name in (*COMMANDS, "etcd") for name in wanted):
            _write_module(folder / "src")
        for name in wanted:
            print(f"building {name}", flush=True)
            _build(folder, name)


def _build(folder: Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / name
        if name == "pause":
            (Path(scratch) / "pause.go").write_text(PAUSE)
            _go("build", "-trimpath", "-ldflags=-s -w", "-o", str(made), "pause.go", cwd=scratch)
        elif name == "coredns":
            _write_coredns(Path(scratch))
            package = "github.com/coredns/coredns"
            _go("build", "-mod=mod", "-trimpath", "-o", str(made), package, cwd=scratch)
        else:
            package = (
                "go.etcd.io/etcd/server/v3" if name == "etcd" else f"k8s.io/kubernetes/cmd/{name}"
            )
            options = ("-mod=mod", "-trimpath", f"-ldflags={_version_flags()}")
            _go("build", *options, "-o", str(made), package, cwd=folder / "src")
        made.rename(folder / "bin" / name)


def _write_module(folder: Path) -> None:
    """Kubernetes' own go.mod, its staging folders replaced by their published versions."""
    folder.mkdir(exist_ok=True)
    said = _go("mod", "download", "-json", f"k8s.io/kubernetes@v{VERSION}", cwd=folder.parent)
    source = Path(json.loads(said)["Dir"])
    staged = f"0.{VERSION.partition('.')[2]}"
    lines = []
    for line in (source / "go.mod").read_text().splitlines():
        name, arrow, where = line.partition(" => ")
        if line.startswith("module "):
            line = "module example.test/kube"
        elif arrow and where.startswith("./staging/"):
            line = f"{name}{arrow}{name.strip().removeprefix('replace ')} v{staged}"
        lines.append(line)
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    (folder / "go.sum").write_bytes((source / "go.sum").read_bytes())
    _go("mod", "edit", f"-require=k8s.io/kubernetes@v{VERSION}", cwd=folder)


def _write_coredns(folder: Path) -> None:
    package = f"github.com/coredns/coredns@{COREDNS}"
    source = Path(json.loads(_go("mod", "download", "-json", package, cwd=folder))["Dir"])
    text = (
        (source / "go.mod")
        .read_text()
        .replace("module github.com/coredns/coredns", "module example.test/dns")
    )
    (folder / "go.mod").write_text(text)
    (folder / "go.sum").write_bytes((source / "go.sum").read_bytes())
    _go("mod", "edit", f"-require={package}", cwd=folder)


def _version_flags() -> str:
    base = "k8s.io/component-base/version"
    major, minor, _ = VERSION.split(".")
    stamps = {
        f"{base}.gitVersion": f"v{VERSION}",
        f"{base}.gitMajor": major,
        f"{base}.gitMinor": minor,
        f"{base}.gitTreeState": "clean",
        f"{base}.buildDate": "2026-01-01T00:00:00Z",
        "k8s.io/client-go/pkg/version.gitVersion": f"v{VERSION}",
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in stamps.items())])


def _go(*arguments: str, cwd: Path | str) -> str:
    environ = {**os.environ, "CGO_ENABLED": "0"}  # noqa: TID251 - handed on
    done = subprocess.run(
        ["go", *arguments], cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise Failed(f"go {' '.join(arguments)} failed in {cwd}")
    return done.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unable() -> str:
    """Why nothing can be built here; empty where it can."""
    if os.environ.get("KUBEBUILDER_ASSETS") or not missing(CONTROL_PLANE + NODE):  # noqa: TID251
        return ""
    return "" if shutil.which("go") else "there is no Go to build Kubernetes with"


def main() -> None:
    """Without the binaries the tests that need them are skipped; required, they must be built."""
    why = _unable()
    try:
        if not why:
            build()
    except Failed as error:
        why = str(error)
    if why and os.environ.get("WML_KUBE") == "required":  # noqa: TID251 - a switch of the suite
        raise SystemExit(f"kube-tools: {why}")
    print(f"kube-tools: skipped, {why}" if why else f"kube-tools: {binaries()}")


if __name__ == "__main__":
    main()
