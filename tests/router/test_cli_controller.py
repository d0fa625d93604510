"""`wml-serving controller` where something is missing."""

import subprocess
import sys

import pytest

# As where the package is not installed.
WITHOUT = """
import sys
sys.modules[{name!r}] = None
from router.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["cryptography", "kubernetes"])
def test_missing_extra_is_said_in_one_line(name: str):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(name=name), "controller", "--namespace", "n"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("wml-serving cannot")]
    assert "the extra `kubernetes` of wml-serving is not installed" in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more", [["--namespace", "m"], ["--all-namespaces"]])
def test_one_target_for_several_meshes_is_refused(more: list[str]):
    told = ["controller", "--namespace", "n", "--management", "127.0.0.1:1", *more]
    done = subprocess.run(
        [sys.executable, "-m", "router", *told],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "--management leads to one mesh, and each namespace has its own" in done.stderr
    assert "Traceback" not in done.stderr
