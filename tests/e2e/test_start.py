"""`serve` that cannot start says why, in words, and leaves nothing running."""

import fcntl
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.stand import BIN, MLSERVER_BIN, RUNTIME

Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Runs `serve` with options changed; what it says as it fails."""

    def run(**changed: object) -> str:
        options = {
            "runtime": RUNTIME,
            "runtime-bin": MLSERVER_BIN,
            "state": tmp_path / "state",
            "storage-config": tmp_path / "keys",
            "listen": "127.0.0.1:0",
            "management": "127.0.0.1:0",
            "operations": "127.0.0.1:0",
            "rest-listen": "127.0.0.1:0",
        } | {name.replace("_", "-"): value for name, value in changed.items()}
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        done = subprocess.run(
            [BIN / "wml-serving", "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        commands = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
        left = [command for command in commands if str(tmp_path) in command]
        assert left == []
        return done.stderr

    return run


@pytest.mark.parametrize("door", ["listen", "rest-listen", "management", "operations"])
def test_address_that_is_taken_is_named(start: Start, door: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"cannot start: cannot listen on {address}" in start(**{door: address})


def test_address_that_is_none_is_named(start: Start):
    assert "cannot listen on 127.0.0.1:x" in start(operations="127.0.0.1:x")


def test_runtime_that_is_not_installed_is_named(start: Start, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert f"no executable {tmp_path}/empty/mlserver" in start(runtime_bin=tmp_path / "empty")


def test_runtime_file_that_is_wrong_has_every_problem_named(start: Start, tmp_path: Path):
    path = tmp_path / "runtime.yaml"
    path.write_text("kind: ServingRuntime\nspec: {}\n")
    said = start(runtime=path)
    assert f"cannot start: {path}:" in said
    assert "apiVersion: required" in said
    assert "spec.containers: required" in said


def test_runtime_file_of_two_documents_is_refused(start: Start, tmp_path: Path):
    path = tmp_path / "runtime.yaml"
    path.write_text(f"{RUNTIME.read_text()}\n---\n{RUNTIME.read_text()}")
    assert "must hold one ServingRuntime, not 2" in start(runtime=path)


def test_predictor_file_that_is_wrong_is_named(start: Start, tmp_path: Path):
    path = tmp_path / "predictor.yaml"
    path.write_text("kind: Predictor\nmetadata: {name: p}\n")
    said = start(predictors=path)
    assert f"cannot start: {path}:" in said
    assert "spec: required" in said


def test_state_folder_that_is_in_use_is_named(start: Start, tmp_path: Path):
    (tmp_path / "state").mkdir()
    with (tmp_path / "state/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert f"{tmp_path}/state is in use by another" in start()
