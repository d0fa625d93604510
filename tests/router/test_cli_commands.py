"""The commands against a management server on loopback: what they print, call and exit with."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import yaml
from click.testing import CliRunner

from mesh.core.errors import DeadlineExceeded, InvalidRequest, NoCapacity, Unavailable
from mesh.core.ids import ModelId
from mesh.wire.pb import wml_management_pb2 as pb
from router.cli.connection import Management
from router.cli.failures import Failure
from router.cli.main import COMMANDS, wml_serving
from tests.support.cli import manifest, run, shown, written
from tests.support.management import DictManagement, listening
from tests.support.runtimes import mlserver_runtime

EXAMPLES = Path(__file__).parents[2] / "deploy/example-predictors"
HEADER = "NAME   TYPE      AVAILABLE   ACTIVEMODEL   TARGETMODEL   TRANSITION   AGE\n"


@pytest.fixture
def management():
    return DictManagement()


@pytest.fixture
def server(management):
    with listening(management) as address:
        yield address


def line(name: str, active: str = "Loaded") -> str:
    years = "26y"
    return f"{name:<7}sklearn   true        {active:<14}              UpToDate     {years}\n"


def without_age(text: str) -> list[str]:
    return [row.rpartition(" ")[0].rstrip() for row in text.splitlines()]


# get


def test_get_prints_the_table(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    result = run("get", "predictors", server=server)
    assert result.exit_code == 0
    assert without_age(result.stdout) == without_age(HEADER + line("x") + line("y"))
    assert result.stderr == ""


@pytest.mark.parametrize("words", [("predictor", "y"), ("predictors", "y"), ("predictor/y",)])
def test_get_of_one(management, server, words):
    management.resources = {name: shown(name) for name in "xy"}
    assert without_age(run("get", *words, server=server).stdout) == without_age(HEADER + line("y"))


def test_get_of_nothing_says_so_on_stderr(server):
    result = run("get", "predictors", server=server)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No resources found.\n"


def test_get_of_an_unknown_name_fails_and_shows_the_others(management, server):
    management.resources = {"x": shown("x")}
    result = run("get", "predictors", "a", "x", "b", server=server)
    assert result.exit_code == 1
    assert without_age(result.stdout) == without_age(HEADER + line("x"))
    assert result.stderr == (
        'Error from server (NotFound): predictors "a" not found\n'
        'Error from server (NotFound): predictors "b" not found\n'
    )


def test_get_wide_adds_columns(management, server):
    failure = {"reason": "ModelLoadFailed", "message": "no such file"}
    management.resources = {"x": shown("x", totalCopies=1, failedCopies=0, lastFailureInfo=failure)}
    head, first = run("get", "predictors", "-o", "wide", server=server).stdout.splitlines()
    assert head.endswith("AGE   COPIES   FAILEDCOPIES   ENDPOINT   LASTFAILURE")
    assert first.endswith("no such file")


def test_get_json_and_yaml_of_one_are_the_object(management, server):
    management.resources = {"x": shown("x")}
    printed = run("get", "predictor", "x", "-o", "json", server=server).stdout
    assert json.loads(printed) == shown("x")
    assert printed.startswith('{\n    "apiVersion": "wmlserving.ai.ibm.com/v1",\n')
    printed = run("get", "predictor", "x", "-o", "yaml", server=server).stdout
    assert yaml.safe_load(printed) == shown("x")


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
@pytest.mark.parametrize("names", ["", "xy"])
def test_get_json_and_yaml_of_all_are_a_list(management, server, output, load, names):
    management.resources = {name: shown(name) for name in names}
    printed = load(run("get", "predictors", "-o", output, server=server).stdout)
    assert (printed["apiVersion"], printed["kind"]) == ("v1", "List")
    assert printed["items"] == [shown(name) for name in names]


def test_get_names(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    result = run("get", "predictors", "-o", "name", server=server)
    assert result.stdout == "predictor/x\npredictor/y\n"


def watched(name: str, resource: object) -> pb.WatchEvent:
    return pb.WatchEvent(name=name, json=json.dumps(resource) if resource else "")


def test_watch_prints_what_exists_once_and_then_each_change(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    management.changes = [
        watched("x", shown("x", activeModelState="Failed")),
        watched("x", shown("x", activeModelState="Failed")),
        watched("y", None),
        watched("y", shown("y")),
    ]
    result = run("get", "predictors", "-w", server=server)
    expected = HEADER + line("x") + line("y") + line("x", "Failed") + line("y")
    assert without_age(result.stdout) == without_age(expected)
    assert result.stderr == 'predictor "y" deleted\nThe server ended the watch.\n'
    assert result.exit_code == 1


def test_watch_of_one_sees_no_other(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    management.changes = [watched("y", None), watched("x", None)]
    result = run("get", "predictor", "x", "--watch", "-o", "name", server=server)
    assert result.stdout == "predictor/x\n"
    assert 'predictor "x" deleted' in result.stderr
    assert ("Watch", "x") in management.calls


def test_watch_in_yaml_separates_documents(management, server):
    management.resources = {name: shown(name) for name in "xy"}
    printed = run("get", "predictors", "-w", "-o", "yaml", server=server).stdout
    assert list(yaml.safe_load_all(printed)) == [shown("x"), shown("y")]


def test_watch_of_an_unknown_name_fails(server):
    result = run("get", "predictor", "x", "-w", server=server)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'Error from server (NotFound): predictors "x" not found\n'


@pytest.mark.parametrize(
    "words",
    [("pods",), ("predictor/",), ("predictor/x", "y"), ("predictors", "x", "y", "-w"), ()],
)
def test_get_of_what_makes_no_sense_is_a_usage_error(words):
    assert run("get", *words).exit_code == 2


# apply


def test_apply_says_what_became_of_each(management, server, tmp_path):
    management.resources = {"old": manifest("old"), "same": manifest("same")}
    path = written(tmp_path, "a.yaml", manifest("new"), manifest("old", "c"), manifest("same"))
    result = run("apply", "-f", str(path), server=server)
    assert result.exit_code == 0
    assert result.stdout == (
        "predictor/new created\npredictor/old configured\npredictor/same unchanged\n"
    )
    assert management.resources["new"] == manifest("new")


def test_apply_of_the_documentations_example(management, server):
    result = run("apply", "-f", str(EXAMPLES), server=server)
    assert "predictor/example-mnist-predictor created\n" in result.stdout


def test_apply_reads_standard_input(server):
    text = yaml.safe_dump(manifest("x"))
    assert run("apply", "-f", "-", server=server, input=text).stdout == "predictor/x created\n"


def test_apply_of_a_folder_takes_its_manifests_in_order(server, tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(manifest("b")))
    written(tmp_path, "a.yaml", manifest("a"))
    written(tmp_path, "c.yml", manifest("c"))
    (tmp_path / "README.md").write_text("no manifest")
    (tmp_path / "sub.yaml").mkdir()
    result = run("apply", "-f", str(tmp_path), server=server)
    assert [row.split()[0][-1] for row in result.stdout.splitlines()] == ["a", "b", "c"]


def test_apply_of_what_get_printed_changes_nothing(management, server, tmp_path):
    management.resources = {"x": shown("x")}
    for output in ("yaml", "json"):
        for words in (("predictors",), ("predictor", "x")):
            printed = run("get", *words, "-o", output, server=server).stdout
            result = run("apply", "-f", "-", server=server, input=printed)
            assert result.stdout == "predictor/x unchanged\n"


def test_apply_sends_nothing_where_any_document_is_invalid(management, server, tmp_path):
    bad = manifest("bad")
    del bad["spec"]["storage"]["s3"]["secretKey"]
    bad["spec"]["pth"] = "x"
    path = written(tmp_path, "a.yaml", manifest("good"), bad)
    twice = tmp_path / "twice.yaml"
    twice.write_text("a: 1\na: 2")
    result = run("apply", "-f", str(path), "-f", str(twice), server=server)
    assert result.exit_code == 1
    assert set(result.stderr.splitlines()) == {
        f"error: {path}, document 2: spec.storage.s3.secretKey: required",
        f"error: {path}, document 2: spec.pth: unknown field, did you mean path?",
        f"error: {twice}: line 2, column 1: field 'a' is given twice",
    }
    assert result.stdout == ""
    assert management.calls == []


def test_apply_goes_on_after_a_refusal_and_fails(management, server, tmp_path):
    management.refusals = {"a": InvalidRequest("spec", "not today")}
    path = written(tmp_path, "a.yaml", manifest("a"), manifest("b"))
    result = run("apply", "-f", str(path), server=server)
    assert result.exit_code == 1
    assert result.stdout == "predictor/b created\n"
    assert result.stderr == (f"{path}, document 1: Error from server (Invalid): spec: not today\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        (b"\xff", "not UTF-8 text"),
        (b"a: [", "did not find expected"),
        (b"x" * (1024 * 1024 + 1), "larger than 1048576 bytes"),
    ],
)
def test_file_that_cannot_be_read_is_named(tmp_path, content, message):
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    result = run("apply", "-f", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {path}: ")
    assert message in result.stderr


def test_nothing_to_apply_is_an_error(tmp_path):
    result = run("apply", "-f", str(tmp_path))
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {tmp_path}: no files that end in .yaml, .yml, .json\n",
    )
    assert run("apply", "-f", "-", input="---\n").stderr == "error: no objects passed\n"
    assert run("apply").exit_code == 2


def test_apply_of_a_runtime_is_refused(tmp_path):
    path = written(tmp_path, "r.yaml", mlserver_runtime())
    assert f"error: {path}: kind: must be Predictor" in run("apply", "-f", str(path)).stderr


# delete


@pytest.mark.parametrize("words", [("predictor", "x"), ("predictors", "x"), ("predictor/x",)])
def test_delete_by_name(management, server, words):
    management.resources = {"x": manifest("x")}
    result = run("delete", *words, server=server)
    assert (result.exit_code, result.stdout) == (0, 'predictor "x" deleted\n')
    assert management.resources == {}


def test_delete_of_an_unknown_name_fails_after_the_others(management, server):
    management.resources = {"x": manifest("x")}
    result = run("delete", "predictor", "a", "x", server=server)
    assert (result.exit_code, result.stdout) == (1, 'predictor "x" deleted\n')
    assert result.stderr == 'Error from server (NotFound): predictors "a" not found\n'


def test_delete_by_file_needs_only_names(management, server, tmp_path):
    management.resources = {name: manifest(name) for name in "xyz"}
    path = written(tmp_path, "a.yaml", manifest("x"), {**manifest("y"), "spec": {"wrong": 1}})
    result = run("delete", "-f", str(path), server=server)
    assert result.stdout == 'predictor "x" deleted\npredictor "y" deleted\n'
    assert set(management.resources) == {"z"}


def test_delete_by_file_deletes_nothing_where_a_document_has_no_name(management, server, tmp_path):
    management.resources = {"x": manifest("x")}
    path = written(tmp_path, "a.yaml", manifest("x"), {"kind": "Predictor"})
    result = run("delete", "-f", str(path), server=server)
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}, document 2: metadata.name: required\n"
    assert set(management.resources) == {"x"}


@pytest.mark.parametrize("words", [(), ("predictor",), ("predictor", "x", "-f", "a"), ("pod", "x")])
def test_delete_of_what_makes_no_sense_is_a_usage_error(words):
    assert run("delete", *words).exit_code == 2


# validate


def test_validate_asks_no_server_and_says_what_is_valid(tmp_path):
    path = written(tmp_path, "a.yaml", manifest("x"), mlserver_runtime())
    result = run("validate", "-f", str(path))
    assert result.exit_code == 0
    assert result.stdout == (
        f"{path}, document 1: predictor/x is valid\n"
        f"{path}, document 2: servingruntime/mlserver-1.x is valid\n"
    )


def test_validate_names_everything_that_is_wrong(tmp_path):
    bad = mlserver_runtime(multiModel=False)
    path = written(tmp_path, "a.yaml", manifest("x"), {**manifest("Y")}, bad, {"kind": "Pod"}, 3)
    result = run("validate", "-f", str(path))
    assert result.exit_code == 1
    assert result.stdout == f"{path}, document 1: predictor/x is valid\n"
    assert [row.removeprefix(f"error: {path}, ") for row in result.stderr.splitlines()] == [
        "document 2: metadata.name: must consist of lower case letters, digits, '-' and '.',"
        " as a DNS name",
        "document 3: spec.multiModel: must be true",
        "document 4: kind: must be Predictor or ServingRuntime",
        "document 5: kind: must be Predictor or ServingRuntime",
    ]


# the server, and the group


@pytest.mark.parametrize(
    "words", [("get", "predictors"), ("get", "predictors", "-w"), ("delete", "predictor", "x")]
)
def test_server_that_is_not_there_is_named(words):
    result = run(*words, server="127.0.0.1:1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "The connection to the server 127.0.0.1:1 was refused - is wml-serving serve running?\n"
    )


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        (
            DeadlineExceeded("x", 1.0),
            "Error from server (Timeout): predictor 'x' was still loading after 1.0 s\n",
        ),
        (Unavailable("draining"), "Error from server (ServiceUnavailable): draining\n"),
        (
            NoCapacity("full", model=ModelId("m")),
            "Error from server (TooManyRequests): no room for model: full\n",
        ),
    ],
)
def test_refusal_of_a_server_is_not_taken_for_its_absence(management, server, refusal, message):
    management.refusals = {"x": refusal}
    assert run("get", "predictor", "x", server=server).stderr == message


def test_server_that_does_not_answer_in_time_is_named(management, server):
    management.holds = {"List"}
    with grpc.insecure_channel(server) as channel:
        calls = Management(channel, server, limit_s=0.01)
        with pytest.raises(Failure, match=rf"^The server {server} did not answer within 0 s$"):
            calls.list()


def test_unexpected_answer_is_one_line_and_no_trace(management, server):
    management.resources = {"x": ["no object"]}
    command = (sys.executable, "-m", "router", "--server", server, "get", "predictor", "x")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: unexpected TypeError: the server sent no object\n"


def test_adapter_without_settings_names_them_all():
    result = run("adapter", "mlserver", env={"ADAPTER_SOCKET": "", "CONTAINER_MEM_REQ_BYTES": ""})
    assert result.exit_code == 1
    assert result.stderr == (
        "error: ADAPTER_SOCKET: required\nerror: CONTAINER_MEM_REQ_BYTES: required\n"
    )


def test_server_comes_from_either_place_of_the_option_or_the_environment(server):
    runner = CliRunner()
    for words, env in (
        (["--server", server, "get", "predictors"], {}),
        (["get", "predictors", "--server", server], {}),
        (["--server", "127.0.0.1:1", "get", "predictors", "--server", server], {}),
        (["get", "predictors"], {"WML_SERVING_SERVER": server}),
    ):
        assert runner.invoke(wml_serving, words, env=env).stderr == "No resources found.\n"


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_unknown_command_is_a_usage_error():
    assert run("frobnicate").exit_code == 2


def test_adapter_of_another_server_type_is_a_usage_error():
    assert run("adapter", "tensorflow").exit_code == 2


def test_program_starts_as_a_module_and_shows_no_trace():
    command = (sys.executable, "-m", "router", "--server", "127.0.0.1:1", "get", "predictors")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("The connection to the server 127.0.0.1:1 was refused")
    assert "Traceback" not in done.stderr


def test_interrupted_watch_leaves_quietly(management, server):
    management.holds = {"Watch"}
    management.resources = {"x": shown("x")}
    command = (sys.executable, "-m", "router", "get", "predictors", "-w", "--server", server)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        try:
            _, errors = watch.communicate(timeout=20)
        finally:
            watch.kill()
    assert (watch.returncode, errors) == (-signal.SIGINT, "")


def test_help_does_not_wait_for_grpc():
    code = "import sys, router.cli.main; print('grpc' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_get_does_not_import_what_only_serve_needs():
    code = (
        "import sys, router.cli.main, router.cli.get, router.cli.apply, router.cli.delete\n"
        "heavy = {'boto3', 'botocore', 'uvloop', 'kubernetes', 'mesh.agent', 'router.serve'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
