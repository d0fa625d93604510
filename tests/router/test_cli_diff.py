"""What would change: `diff` and `apply --dry-run`; and what the shell completes."""

import asyncio
import subprocess
import sys

import pytest

from mesh.core.errors import InvalidRequest
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.cli import manifest, run, shown, written
from tests.support.management import DictManagement, listening
from tests.support.world import world


@pytest.fixture
def management():
    return DictManagement()


@pytest.fixture
def server(management):
    with listening(management) as address:
        yield address


def test_diff_of_what_the_server_has_is_empty(management, server, tmp_path):
    management.resources = {"x": shown("x")}
    content = manifest("x")
    content["spec"]["schemaPath"] = ""  # an empty field is as none
    path = written(tmp_path, "a.yaml", content)
    result = run("diff", "-f", str(path), server=server)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_diff_shows_from_what_to_what_a_spec_changes(management, server, tmp_path):
    management.resources = {"x": shown("x"), "y": shown("y")}
    path = written(tmp_path, "a.yaml", manifest("y"), manifest("x", "c"))
    result = run("diff", "-f", str(path), server=server)
    assert result.exit_code == 1
    assert result.stdout == (
        "--- predictor/x (server)\n"
        f"+++ predictor/x ({path}, document 2)\n"
        "@@ -1,7 +1,7 @@\n"
        " spec:\n"
        "   modelType:\n"
        "     name: sklearn\n"
        "-  path: a/b\n"
        "+  path: c\n"
        "   storage:\n"
        "     s3:\n"
        "       secretKey: key\n"
    )
    assert {method for method, _ in management.calls} == {"Get"}


def test_diff_of_a_new_predictor_is_all_of_it(server, tmp_path):
    path = written(tmp_path, "a.yaml", manifest("x"))
    result = run("diff", "-f", str(path), server=server)
    assert result.exit_code == 1
    assert "@@ -0,0 +1,7 @@" in result.stdout
    assert all(line[0] in "+-@" for line in result.stdout.splitlines())


def test_diff_that_cannot_be_made_exits_with_two(management, server, tmp_path):
    good = written(tmp_path, "a.yaml", manifest("x"))
    bad = written(tmp_path, "b.yaml", manifest("X"))
    management.refusals = {"x": InvalidRequest("name", "not today")}
    for words, message in (
        (["-f", str(good)], "Error from server (Invalid): name: not today"),
        (["-f", str(bad)], f"error: {bad}: metadata.name: must consist"),
        (["-f", str(tmp_path / "no.yaml")], "no such file or directory"),
        (["-f", str(good), "--server", "127.0.0.1:1"], "was refused"),
    ):
        result = run("diff", *words, server=server)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr


def test_dry_run_says_what_would_become_of_each_and_changes_nothing(management, server, tmp_path):
    management.resources = {"old": manifest("old"), "same": manifest("same")}
    before = dict(management.resources)
    path = written(tmp_path, "a.yaml", manifest("new"), manifest("old", "c"), manifest("same"))
    result = run("apply", "--dry-run", "-f", str(path), server=server)
    assert result.exit_code == 0
    assert result.stdout == (
        "predictor/new created (dry run)\n"
        "predictor/old configured (dry run)\n"
        "predictor/same unchanged (dry run)\n"
    )
    assert management.resources == before


def completed(*words: str, server: str) -> list[str]:
    """What a shell offers for the last of the words."""
    line = " ".join(["wml-serving", *words])
    env = {
        "_WML_SERVING_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words)),
        "WML_SERVING_SERVER": server,
        "PATH": "",
    }
    command = (sys.executable, "-m", "router")
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.split()]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["describe", ""], ["predictor", "predictors"]),
        (["get", "n"], ["node", "nodes"]),
        (["get", "p"], ["predictor", "predictors"]),
        (["get", "node", ""], ["n1", "n2"]),
        (["get", "nodes/n"], ["nodes/n1", "nodes/n2"]),
        (["delete", "nodes/n"], []),
        (["drain", ""], ["n1", "n2"]),
        (["forget", "predictor", "a"], ["ab", "ac"]),
        (["get", "predictor", ""], ["ab", "ac", "b"]),
        (["get", "predictor", "a"], ["ab", "ac"]),
        (["get", "predictor", "ab", "a"], ["ac"]),
        (["get", "predictor/a"], ["predictor/ab", "predictor/ac"]),
        (["describe", "predictor", "b"], ["b"]),
        (["delete", "predictor", "b"], ["b"]),
        (["infer", "a"], ["ab", "ac"]),
        (["get", "pods/"], []),
        (["schema", "s"], ["servingruntime"]),
        (["de"], ["describe", "delete"]),
    ],
)
def test_shell_completes_resources_and_names(management, server, words, offered):
    management.resources = {name: shown(name) for name in ("ab", "ac", "b")}
    management.others = {pb.NODE: {name: {"metadata": {"name": name}} for name in ("n1", "n2")}}
    assert completed(*words, server=server) == offered


def test_shell_completes_by_the_server_that_is_on_the_line(management, server):
    management.resources = {"ab": shown("ab")}
    unreachable = "127.0.0.1:1"
    words = ["--server", server, "get", "predictor", "a"]
    assert completed(*words, server=unreachable) == ["ab"]
    words = ["get", "--server", server, "predictor", "a"]
    assert completed(*words, server=unreachable) == ["ab"]


def test_shell_completes_nothing_where_no_server_answers():
    assert completed("get", "predictor", "", server="127.0.0.1:1") == []


async def test_diff_and_dry_run_of_a_real_node(tmp_path):
    async with world() as w:
        await w.apply("p")
        address = f"127.0.0.1:{w.running.management_port}"
        answer = (await _run(address, "get", "predictor", "p", "-o", "yaml")).stdout
        same, other = tmp_path / "same.yaml", tmp_path / "other.yaml"
        same.write_text(answer)
        other.write_text(answer.replace("path: a", "path: b"))
        assert (await _run(address, "diff", "-f", str(same))).returncode == 0
        done = await _run(address, "diff", "-f", str(other))
        assert done.returncode == 1
        assert "-  path: a\n+  path: b\n" in done.stdout
        done = await _run(address, "apply", "--dry-run", "-f", str(other))
        assert done.stdout == "predictor/p configured (dry run)\n"
        assert (await _run(address, "diff", "-f", str(same))).returncode == 0


async def _run(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router", "--server", address, *arguments]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
    )
