"""The models and the stands of the end-to-end tests."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support import mesh_lab
from tests.support.mesh_lab import Lab
from tests.support.mesh_mlserver import MLServers
from tests.support.mesh_stand import MeshStand, mesh_stand, small_mesh
from tests.support.s3 import S3Server
from tests.support.stand import MLSERVER_BIN, ROOT, Stand, standing

# What only the runtime of ours can be told.
OF_OURS = {"kind", "calls_at_once", "is_any_allowed"}
_left_out: set[str] = set()


@pytest.fixture
def runtimes(request: pytest.FixtureRequest, tmp_path: Path, is_real: bool) -> dict[str, Any]:
    """What a stand is told of its runtimes."""
    if not is_real:
        return {}
    return {"mlservers": MLServers(tmp_path / "mlservers", request.getfixturevalue("mnist"))}


@pytest.fixture
def make_mesh(
    tmp_path: Path, runtimes: dict[str, Any], is_real: bool
) -> Callable[..., AbstractAsyncContextManager[MeshStand]]:
    """Starts a mesh of the test's own; with --real beside MLServers."""

    def make(**settings: Any) -> AbstractAsyncContextManager[MeshStand]:
        if is_real and (ours := sorted(OF_OURS & settings.keys())):
            pytest.skip(f"about a runtime of ours ({', '.join(ours)}), not MLServer")
        return mesh_stand(tmp_path / "mesh", **runtimes, **settings)

    return make


@pytest.fixture
def make_small_mesh(
    tmp_path: Path, runtimes: dict[str, Any]
) -> Callable[..., AbstractAsyncContextManager[MeshStand]]:
    """As `make_mesh`, without etcd."""
    return partial(small_mesh, tmp_path / "mesh", **runtimes)


@pytest.fixture
def make_lab_mesh(
    request: pytest.FixtureRequest,
) -> Callable[..., AbstractAsyncContextManager[MeshStand]]:
    """As `make_mesh`, each node in a network of its own: the test is run in a pytest of its own."""
    if mesh_lab.is_inside():
        return partial(request.getfixturevalue("make_mesh"), lab=Lab())
    if why := mesh_lab.unable():
        _left_out.add(why)
        pytest.skip(why)
    return mesh_stand  # nobody calls it: see the hook


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if "make_lab_mesh" not in pyfuncitem.fixturenames or mesh_lab.is_inside():
        return None
    config = pyfuncitem.config
    timeout_s = float(config.getoption("timeout") or config.getini("timeout"))
    options = [f"--timeout={timeout_s - 10}"]  # it says where it hangs before it is killed
    options += [name for name in ("--long", "--real") if config.getoption(name)]
    if said := mesh_lab.run_inside(pyfuncitem.nodeid, options):
        pytest.fail(said, pytrace=False)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says aloud what was left out, which -q would hide."""
    for why in sorted(_left_out):
        terminalreporter.write_line(f"tests/e2e: packets are not dropped, {why}", yellow=True)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example model, made by the script that `make run` uses."""
    folder = tmp_path_factory.mktemp("models")
    script = ROOT / "deploy/quickstart/make_example_models.py"
    subprocess.run([MLSERVER_BIN / "python", script, folder], check=True, timeout=120)
    return folder / "sklearn/mnist-svm.joblib"


@pytest.fixture
def make_stand(tmp_path: Path, s3_server: S3Server) -> Iterator[Callable[..., Stand]]:
    """Starts a stand that ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(standing(tmp_path, s3_server, **options))


@pytest.fixture
def stand(make_stand: Callable[..., Stand], mnist: Path) -> Stand:
    """A stand with the example model under its path, and twice more."""
    stand = make_stand()
    for path in ("sklearn/mnist-svm.joblib", "sklearn/other.joblib"):
        stand.put(path, mnist)
    return stand
