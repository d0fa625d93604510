"""The README's walk-through, run as it stands there."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.stand import ROOT
from tests.support.waiting import until

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
ID = "example-mnist-predictor-725d74f061"


def block(*words: str) -> str:
    """The one code block of the README that has all of these words."""
    (found,) = [text for text in BLOCKS if all(word in text for word in words)]
    return found


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`make run`, but for its state folder; the file that its output goes to."""
    folder = tmp_path_factory.mktemp("run")
    output = folder / "output"
    environment = os.environ | {"STATE": str(folder / "state")}  # noqa: TID251
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-c", BLOCKS[0]],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        until(
            lambda: process.poll() is not None or "is up" in output.read_text(),
            output.read_text,
        )
        assert process.poll() is None, output.read_text()
        yield output
    finally:
        children = []
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C sends
            process.wait(30)
        psutil.wait_procs(children, timeout=10)
        left = [child for child in children if child.is_running()]
        for child in left:
            child.kill()
    assert not left


def bash(script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(text: str) -> tuple[str, str]:
    """The id that answered and the digit, of a JSON answer."""
    read = json.loads(text)
    return read["modelName"], read["outputs"][0]["contents"]["int64Contents"][0]


def test_the_first_block_is_make_run_and_nothing_else():
    assert BLOCKS[0] == "make run\n"


def test_the_walk_through_does_what_the_readme_says(make_run: Path):
    call = block("grpcurl", "-proto", "example-mnist-predictor")
    assert answer(bash(call)) == (ID, "8")
    assert answer(block('"modelName"')) == (ID, "8")
    without = call.replace("-proto proto/kfs_inference_v2.proto ", "")
    assert without != call
    assert answer(bash(without)) == (ID, "8")
    output = bash("export PATH=$PWD/.venv/bin:$PATH\n" + block("localhost:8033 list", "delete"))
    assert "inference.GRPCInferenceService\n" in output
    header, *rows = block("$ wml-serving get predictors").splitlines()[1:]
    assert header in output
    shown = {line.split()[0]: line.split() for line in output.splitlines() if line}
    for row in rows:
        name, kind, *state = row.split()[:5]
        assert shown[name][:2] == [name, kind]
        # The others may still be loading.
        assert name != "example-mnist-predictor" or shown[name][2:5] == state
    assert "predictor/example-mnist-predictor unchanged\n" in output
    assert 'predictor "example-mnist-predictor" deleted\n' in output
