"""One cluster for all of `node`, a namespace a test; and an API server without any node.

Tests on an API server alone run wherever its binaries are in the cache. Those on a node run where
`WML_KUBE` is set: `make test` says `wanted`, and what cannot be had is skipped and says why; `make
test-kube` says `required`, and then it fails.
"""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controller.runtimes import DEPLOY
from tests.support import kube_tools
from tests.support.kube_cluster import Cluster, unable
from tests.support.kube_control_plane import ControlPlane, Ports, installed
from tests.support.kube_installation import Servers
from tests.support.ports import free_ports

# Bringing up the cluster counts into the first test's time.
TIMEOUT_S = 420
_numbers = itertools.count(1)
_left_out: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        names = set(item.fixturenames)  # type: ignore[attr-defined]
        if here in item.path.parents and names & {"cluster", "control_plane"}:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """With a node, and the images of the shipped manifests."""
    if not _wish():
        _skip("those on a node are run by make test and make test-kube")
    if why := unable():
        _skip(f"no cluster here: {why}")
    cluster = Cluster(f"test-{os.getpid()}")
    try:
        cluster.up()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        # Where one can be had, that it does not come up is no reason to go on without.
        pytest.fail(f"the cluster does not come up, its logs are kept: {error}", pytrace=False)
    yield cluster
    cluster.down()


@pytest.fixture(scope="session")
def servers(cluster: Cluster) -> Servers:
    """On their way up; they stay as long as the cluster does."""
    servers = Servers(cluster)
    servers.start()
    return servers


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """One of the test's own, at the strictest Pod Security level."""
    name = f"test-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    level = "pod-security.kubernetes.io/enforce=restricted"
    cluster.kubectl("label", "namespace", name, level)
    cluster.kubectl(
        *("wait", f"--namespace={name}", "--for=create", "serviceaccount/default", "--timeout=30s")
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server on loopback, without a node; needs no root. Where there are controllers and a
    scheduler, these too; a folder of kubebuilder's has none.
    """
    if absent := kube_tools.missing(kube_tools.API):
        _skip(f"no {', '.join(absent)} in {kube_tools.binaries()}; make kube-tools")
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), Ports(*free_ports(5)))
    with pytest.MonkeyPatch.context() as patched:
        # A kubectl that comes with them goes before the system's.
        patched.setenv("PATH", str(kube_tools.binaries()), prepend=os.pathsep)
        try:
            plane.start()
            yield plane
        finally:
            plane.stop()


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """That API server, with `deploy/overlays/default` and the definitions for one module."""
    with installed(control_plane, DEPLOY, "default"):
        yield control_plane


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says aloud what was left out, which -q would hide."""
    for why in sorted(set(_left_out)):
        terminalreporter.write_line(f"tests/kube: skipped, {why}", yellow=True)


def _wish() -> str:
    return os.environ.get("WML_KUBE", "")  # noqa: TID251 - a switch of the suite


def _skip(why: str) -> None:
    if _wish() == "required":
        pytest.fail(why, pytrace=False)
    _left_out.append(why)
    pytest.skip(why)
