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
