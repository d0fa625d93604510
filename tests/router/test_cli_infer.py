"""`infer` against a whole node on loopback: what is sent, printed, shown meanwhile and refused."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from mesh.runtime.port import Progress
from router.cli.waiting import WaitingLine
from tests.support.fake_runtime import FakeRuntime
from tests.support.world import World, begin, eventually, world

REQUEST = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}]}
OUTPUT = REQUEST["inputs"][0] | {"data": [1, 2.5]}
MNIST = Path(__file__).parents[2] / "docs/requests/mnist.json"


async def infer(w: World | None, *arguments: str, text: str | None = None, stderr=None):
    """Runs the command in a process of its own, against the world's addresses."""
    management = w.running.management_port if w else 1
    command = [sys.executable, "-m", "router", "--server", f"127.0.0.1:{management}", "infer"]
    inference = ["--inference-server", f"127.0.0.1:{w.running.port if w else 1}"]
    return await asyncio.to_thread(
        subprocess.run,
        [*command, *inference, *arguments],
        input=json.dumps(REQUEST) if text is None else text,
        stdout=subprocess.PIPE,
        stderr=stderr or subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )


async def test_infer_prints_the_answer_as_v2_json_and_nothing_else_when_it_is_loaded():
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        done = await infer(w, "p", "-f", "-", text=json.dumps(REQUEST | {"id": "r1"}))
        assert (done.returncode, done.stderr) == (0, "")
        answer = {"model_name": w.runtime.loads[0], "id": "r1", "outputs": [OUTPUT]}
        assert json.loads(done.stdout) == answer
        assert done.stdout.endswith("}\n  ]\n}\n")


async def test_infer_takes_the_form_of_grpc_from_a_file_and_sends_it_to_the_name_given():
    async with world() as w:
        await w.apply("p")
        done = await infer(w, "p", "-f", str(MNIST))
        assert json.loads(done.stdout)["model_name"] == w.runtime.loads[0]


async def read_until(stream: int, word: bytes) -> bytes:
    """What comes up to and with a word."""
    found = b""
    while word not in found:
        found += await asyncio.to_thread(os.read, stream, 4096)
    return found


async def test_infer_on_a_cold_model_says_line_by_line_what_it_waits_for():
    ours, theirs = os.pipe()
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    try:
        async with world(runtime) as w:
            await w.apply("p")
            await eventually(lambda: runtime.loads)
            asked = begin(infer(w, "p", "-f", "-", stderr=theirs))
            shown = await read_until(ours, b"\n")
            runtime.tell(Progress(runtime.loads[0], "pulling", 3_100_000, 12_000_000))
            shown += await read_until(ours, b"\n")
            runtime.gates["a"].set()
            assert (await asked).returncode == 0
        assert shown == b"p: loading\np: pulling 3.1/12 MB\n"
    finally:
        os.close(ours)
        os.close(theirs)


async def test_infer_redraws_one_line_on_a_terminal_and_clears_it():
    ours, theirs = pty.openpty()
    runtime = FakeRuntime(gates={"a": asyncio.Event()})
    try:
        async with world(runtime) as w:
            await w.apply("p")
            await eventually(lambda: runtime.loads)
            asked = begin(infer(w, "p", "-f", "-", stderr=theirs))
            shown = await read_until(ours, b"loading")
            runtime.tell(Progress(runtime.loads[0], "pulling", 3_100_000, 12_000_000))
            shown += await read_until(ours, b"MB")
            runtime.gates["a"].set()
            assert json.loads((await asked).stdout)
            shown += os.read(ours, 4096)
        clear = b"\r\x1b[K"
        pulling = clear + b"p: pulling 3.1/12 MB"
        assert shown == clear + b"p: loading" + pulling + clear
    finally:
        os.close(ours)
        os.close(theirs)


async def test_infer_answers_where_nobody_answers_for_the_management():
    async with world() as w:
        await w.apply("p")
        done = await infer(w, "p", "-f", "-", "--server", "127.0.0.1:1")
        assert (done.returncode, done.stderr) == (0, "")


async def test_infer_says_how_a_request_was_refused():
    runtime = FakeRuntime(failures={"bad": "no such object"})
    async with world(runtime) as w:
        done = await infer(w, "nobody", "-f", "-")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == 'Error from server (NotFound): predictors "nobody" not found\n'
        await w.apply("p", path="bad")
        await w.reaches("p", "Failed  UpToDate")
        done = await infer(w, "p", "-f", "-")
        assert done.returncode == 1
        expected = "Error from server (Forbidden): model load failed: no such object\n"
        assert done.stderr == expected


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (grpc.StatusCode.NOT_FOUND, "Error from server (NotFound): no such output\n"),
        (grpc.StatusCode.INTERNAL, "Error from server (InternalError): no such output\n"),
    ],
)
async def test_infer_passes_on_what_the_model_says(code, message):
    async with world() as w:
        await w.apply("p")
        await w.ask("p")
        w.plane.errors["r"] = (code, "no such output")
        done = await infer(w, "p", "-f", "-", text=json.dumps(REQUEST | {"id": "r"}))
        assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


async def test_infer_waits_no_longer_than_it_is_told():
    async with world(FakeRuntime(gates={"a": asyncio.Event()})) as w:
        await w.apply("p")
        done = await infer(w, "p", "-f", "-", "--timeout", "0.2")
        assert done.returncode == 1
        assert "still loading" in done.stderr or "did not answer within" in done.stderr


async def test_infer_without_a_server_says_so():
    done = await infer(None, "p", "-f", "-")
    assert done.returncode == 1
    assert done.stderr.startswith("The connection to the server 127.0.0.1:1 was refused")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "error: standard input: not JSON: Expecting property name"),
        ("[" * 100_000, "error: standard input: nested too deeply"),
        ("{}", "error: standard input: inputs: required"),
        (
            json.dumps(REQUEST).replace("FP32", "FP16"),
            "error: standard input: inputs[0].datatype: FP16 has no form in JSON",
        ),
    ],
)
async def test_request_that_cannot_be_sent_is_refused_before_any_call(text, message):
    done = await infer(None, "p", "-f", "-", text=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


async def test_request_file_that_is_not_there_is_named(tmp_path):
    done = await infer(None, "p", "-f", str(tmp_path / "no.json"))
    assert done.stderr == f"error: {tmp_path / 'no.json'}: no such file or directory\n"


class Stream:
    """What is written, and whether it is a terminal."""

    def __init__(self, is_terminal: bool) -> None:
        self.text = ""
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


def test_plain_lines_come_with_each_stage_and_then_now_and_then():
    now_s = 0.0
    stream = Stream(is_terminal=False)
    with WaitingLine("p", stream, clock=lambda: now_s) as line:  # type: ignore[arg-type]
        for progress in ("", "pulling", "pulling 1/12 MB", "pulling 2/12 MB"):
            line.show(progress)
        now_s = 6.0
        line.show("pulling 3/12 MB")
        line.show("loading")
    assert stream.text == "p: pulling\np: pulling 3/12 MB\np: loading\n"


def test_terminal_line_is_drawn_only_when_it_changes_and_shows_no_control_characters():
    stream = Stream(is_terminal=True)
    with WaitingLine("p", stream) as line:  # type: ignore[arg-type]
        line.show("")
        line.show("loading\x1b[2J")
        line.show("loading\x1b[2J")
    assert stream.text == "\r\x1b[Kp: loading[2J\r\x1b[K"
