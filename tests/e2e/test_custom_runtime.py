"""The example of a runtime of one's own, as docs/custom-runtimes.md has it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_ports
from tests.support.stand import BIN, ROOT
from tests.support.waiting import until

EXAMPLE = ROOT / "deploy/example-runtime"
READY_S = 60.0


@dataclass
class Example:
    """A node with that runtime beside it."""

    public: str
    internal: str
    folder: Path
    runtime: subprocess.Popen[bytes]

    def cli(self, *arguments: str | Path, text: str = "", check: bool = True):
        command = [BIN / "wml-serving", "--server", self.internal, *arguments]
        return subprocess.run(
            command, input=text, capture_output=True, text=True, check=check, timeout=60
        )

    def infer(self, name: str, numbers: list[float]) -> subprocess.CompletedProcess[str]:
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": [len(numbers)],
            "contents": {"fp32_contents": numbers},
        }
        body = json.dumps({"model_name": name, "inputs": [tensor]})
        command = [BIN / "grpcurl", "-plaintext", "-d", "@", "-max-time", "20", self.public]
        return subprocess.run(
            [*command, "inference.GRPCInferenceService.ModelInfer"],
            input=body,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def log(self) -> str:
        return (self.folder / "node.log").read_text()


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Example]:
    spi, public, internal, operations = free_ports(4)
    runtime = [sys.executable, EXAMPLE / "scale.py", "--port", str(spi)]
    node = [BIN / "wml-serving", "node", "--store", "memory", "--runtime", f"127.0.0.1:{spi}"]
    listen, management = f"127.0.0.1:{public}", f"127.0.0.1:{internal}"
    node += ["--serving-runtime", EXAMPLE / "scale.yaml", "--listen", listen]
    node += ["--internal", management, "--operations", f"127.0.0.1:{operations}"]
    node += ["--rest-listen", "none", "--connection-age", "1"]
    with ExitStack() as stack:
        processes = []
        for name, command in (("runtime", runtime), ("node", node)):
            log = stack.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        made = Example(listen, management, tmp_path, processes[0])
        until(lambda: "is up" in made.log(), made.log, READY_S)
        yield made


def test_example_runtime_serves_loads_and_says_what_is_wrong(example: Example):
    example.cli("apply", "-f", EXAMPLE / "predictor.yaml")
    answer = json.loads(example.infer("thrice", [1.0, 2.5]).stdout)
    assert answer["modelName"].startswith("thrice-")
    assert answer["outputs"][0]["contents"] == {"fp32Contents": [3.0, 7.5]}
    wrong = (EXAMPLE / "predictor.yaml").read_text().replace("thrice", "wrong").replace('"3"', "x")
    example.cli("apply", "-f", "-", text=wrong)
    refused = example.infer("wrong", [1.0])
    assert "FailedPrecondition" in refused.stderr
    assert "path: must be a number, not 'x'" in refused.stderr
    # As in a container, where only a signal that is handled ends the first process.
    example.runtime.terminate()
    assert example.runtime.wait(20) == 0
