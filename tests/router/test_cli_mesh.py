"""The commands for a mesh: nodes, models and copies, drain and forget, export and import."""

import json

import pytest
import yaml

from mesh.core.errors import InvalidRequest, NoSuchResource, Unavailable
from mesh.wire.pb import wml_management_pb2 as pb
from tests.support.cli import manifest, run, shown
from tests.support.management import DictManagement, listening

SINCE = "2000-01-01T00:00:00Z"


@pytest.fixture
def management():
    return DictManagement()


@pytest.fixture
def server(management):
    with listening(management) as address:
        yield address


def resource(kind: str, name: str, **status) -> dict:
    metadata = {"name": name, "creationTimestamp": "2000-01-01T00:00:00Z"}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "status": status}


def node(name: str, **status) -> dict:
    fields = {
        "state": "Ready",
        "runtime": "mlserver-1.x",
        "modelTypes": ["onnx", "sklearn:0"],
        "copies": 3,
        "loading": 1,
        "usedBytes": 1_500_000,
        "capacityBytes": 2_000_000_000,
        "requestsPerSecond": 12.3,
        "zone": "z1",
        "labels": ["gpu", "ssd"],
        "address": "10.0.0.1:8034",
    }
    return resource("Node", name, **(fields | status))


def model(name: str, **status) -> dict:
    fields = {"state": "Loaded", "predictors": ["p", "q"], "copies": 2, "failedCopies": 1}
    spec = {"modelType": {"name": "sklearn"}, "path": "a/b"}
    return resource("Model", name, **(fields | status)) | {"spec": spec}


def copy(name: str, **status) -> dict:
    model_id, _, place = name.partition("/")
    fields = {"model": model_id, "node": place, "state": "Loaded", "sizeBytes": 12_000_000}
    since = {"since": "2000-01-01T00:00:00Z"}
    return resource("Copy", name, **(fields | since | status))


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


# get


@pytest.mark.parametrize("words", [("nodes",), ("node",), ("node", "n1"), ("node/n1",)])
def test_nodes_are_a_table(management, server, words):
    management.others = {pb.NODE: {"n1": node("n1")}}
    head, row = cells(run("get", *words, server=server).stdout)
    assert " ".join(head) == "NAME STATE RUNTIME COPIES USED CAPACITY RPS ADDRESS AGE"
    assert " ".join(row[:-1]) == "n1 Ready mlserver-1.x 3 1.5 MB 2.0 GB 12.3 10.0.0.1:8034"


def test_nodes_wide_have_what_placement_looks_at(management, server):
    management.others = {pb.NODE: {"n1": node("n1", runtime="")}}
    head, row = cells(run("get", "nodes", "-o", "wide", server=server).stdout)
    assert head[-4:] == ["LOADING", "ZONE", "LABELS", "TYPES"]
    assert row[-4:] == ["1", "z1", "gpu,ssd", "onnx,sklearn:0"]
    assert row[2] == "<none>"


def test_models_are_a_table(management, server):
    management.others = {pb.MODEL: {"m": model("m"), "bare": {**model("bare"), "spec": {}}}}
    head, bare, row = cells(run("get", "models", "-o", "wide", server=server).stdout)
    assert head == ["NAME", "TYPE", "STATE", "COPIES", "FAILED", "PREDICTORS", "PATH"]
    assert row == ["m", "sklearn", "Loaded", "2", "1", "p,q", "a/b"]
    assert bare == ["bare", "Loaded", "2", "1", "p,q"]


def test_runtimes_are_a_table(management, server):
    used = {"state": "Running", "since": SINCE, "wanted": "", "lastUse": SINCE, "predictors": 3}
    zero = used | {"state": "Zero", "lastUse": "", "wanted": SINCE, "predictors": 0}
    spec = {"supportedModelTypes": [{"name": "onnx"}, {"name": "sklearn", "version": "0"}]}
    management.others = {
        pb.RUNTIME: {
            "a": {"metadata": {"name": "a"}, "spec": spec, "status": used},
            "b": {"metadata": {"name": "b"}, "status": zero},
        }
    }
    head, first, second = cells(run("get", "runtimes", "-o", "wide", server=server).stdout)
    assert head == ["NAME", "STATE", "PREDICTORS", "USED", "WANTED", "FOR", "TYPES"]
    ago = first[3]
    assert ago.endswith("y")
    assert first == ["a", "Running", "3", ago, "<never>", ago, "onnx,sklearn:0"]
    assert second == ["b", "Zero", "0", "<never>", ago, ago]


def test_watched_runtimes_are_printed_when_more_changes_than_their_use(management, server):
    status = {"state": "Zero", "since": SINCE, "wanted": "", "lastUse": "", "predictors": 0}
    shown = {"metadata": {"name": "a"}, "status": status}
    management.others = {pb.RUNTIME: {"a": shown}}
    management.news = [
        event("a", {**shown, "status": status | {"lastUse": SINCE, "wanted": SINCE}}),
        event("a", {**shown, "status": status | {"state": "Starting"}}),
    ]
    result = run("get", "runtimes", "-w", server=server)
    assert [row[1] for row in cells(result.stdout)[1:]] == ["Zero", "Starting"]


def test_copies_are_a_table_and_of_a_node_or_model_only_its(management, server):
    failed = copy("m/n2", state="Failed", sizeBytes=0, reason="no such\nobject")
    management.others = {pb.COPY: {"m/n1": copy("m/n1"), "m/n2": failed}}
    head, first, second = cells(run("get", "copies", "-o", "wide", server=server).stdout)
    assert head == ["MODEL", "NODE", "STATE", "SIZE", "FOR", "REASON"]
    assert first[:5] == ["m", "n1", "Loaded", "12", "MB"]
    assert " ".join(second[:3] + second[4:]) == "m n2 Failed no such object"
    assert len(cells(run("get", "copies", "n2", server=server).stdout)) == 2
    assert len(cells(run("get", "copies", "m", server=server).stdout)) == 3
    assert len(cells(run("get", "copy/m/n1", server=server).stdout)) == 2


def test_other_kinds_in_json_yaml_and_names(management, server):
    management.others = {pb.COPY: {name: copy(name) for name in ("m/n1", "m/n2")}}
    one = json.loads(run("get", "copy", "m/n1", "-o", "json", server=server).stdout)
    assert one == copy("m/n1")
    for words in ((), ("m",)):
        many = yaml.safe_load(run("get", "copies", *words, "-o", "yaml", server=server).stdout)
        assert (many["kind"], many["items"]) == ("List", [copy("m/n1"), copy("m/n2")])
    names = run("get", "copies", "-o", "name", server=server).stdout
    assert names == "copy/m/n1\ncopy/m/n2\n"


@pytest.mark.parametrize("plural", ["nodes", "models", "copies"])
def test_other_kinds_that_are_not_there(server, plural):
    result = run("get", plural, server=server)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No resources found.\n")
    result = run("get", plural, "x", server=server)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f'Error from server (NotFound): {plural} "x" not found\n'


def test_watched_nodes_are_printed_when_more_changes_than_their_load(management, server):
    management.others = {pb.NODE: {"n1": node("n1"), "n2": node("n2")}}
    management.news = [
        event("n1", node("n1", requestsPerSecond=99.0)),
        event("n1", node("n1", state="Draining")),
        event("n1", None),
    ]
    result = run("get", "nodes", "-w", server=server)
    assert [row[:2] for row in cells(result.stdout)[1:]] == [
        ["n1", "Ready"],
        ["n2", "Ready"],
        ["n1", "Draining"],
    ]
    assert result.stderr == 'node "n1" gone\nThe server ended the watch.\n'


def event(name: str, shown: dict | None) -> pb.ReadEvent:
    return pb.ReadEvent(name=name, json=json.dumps(shown) if shown else "")


def test_unknown_kind_says_which_there_are():
    result = run("get", "pods")
    assert result.exit_code == 2
    assert (
        'no resource type "pods"; it has predictors, models, nodes, copies and runtimes.'
        in result.stderr
    )
    assert 'no resource type "nodes"; it has predictors.' in run("delete", "nodes", "n1").stderr
    assert run("get", "node/").exit_code == run("get", "node/a", "b").exit_code == 2


# drain and forget


@pytest.mark.parametrize("name", ["n1", "node/n1"])
def test_drain_says_that_it_has_begun(management, server, name):
    management.others = {pb.NODE: {"n1": node("n1")}}
    result = run("drain", name, server=server)
    assert (result.exit_code, result.stdout) == (0, "node/n1 draining\n")
    assert management.calls == [("Drain", "n1")]


def test_drain_of_an_unknown_or_silent_node_fails(management, server):
    result = run("drain", "x", server=server)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'Error from server (NotFound): nodes "x" not found\n'
    management.refusals = {"n1": Unavailable("node 'n1' does not answer")}
    result = run("drain", "n1", server=server)
    assert result.stderr == ("Error from server (ServiceUnavailable): node 'n1' does not answer\n")


def test_drain_that_waits_returns_once_the_node_has_handed_over(management, server):
    management.others = {pb.NODE: {"n1": node("n1")}}
    management.drained = pb.DrainResponse(is_handed_over=True)
    result = run("drain", "n1", "--wait", server=server)
    assert (result.exit_code, result.stdout) == (0, "node/n1 draining\nnode/n1 handed over\n")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("models", "named"), [("ab", "a, b"), ("abcdefg", "a, b, c, d, e and 2 more")]
)
def test_drain_that_waits_names_what_no_other_node_has(management, server, models, named):
    management.others = {pb.NODE: {"n1": node("n1")}}
    management.drained = pb.DrainResponse(is_handed_over=True, kept=models)
    result = run("drain", "n1", "--wait", server=server)
    assert result.exit_code == 0
    assert result.stderr == f"loaded nowhere else: {named}\n"


def test_drain_that_waits_is_told_when_it_cannot_know_or_takes_too_long(management, server):
    management.others = {pb.NODE: {"n1": node("n1")}}
    result = run("drain", "n1", "--wait", server=server)
    assert (result.exit_code, result.stdout) == (1, "node/n1 draining\n")
    assert result.stderr == "error: node/n1 does not say when it has handed over\n"
    management.holds = {"Drain"}
    result = run("drain", "n1", "--wait", "--timeout", "0.2", server=server)
    assert result.exit_code == 1
    assert result.stderr == "error: node/n1 has not handed over within 0.2 s\n"


def test_forget_says_where(management, server):
    management.forgotten = pb.ForgetFailureResponse(nodes=["n1", "n2"])
    result = run("forget", "predictor", "p", "q", server=server)
    assert result.exit_code == 0
    assert result.stdout == ("predictor/p forgotten on n1, n2\npredictor/q forgotten on n1, n2\n")
    run("forget", "model/m", "--node", "n2", server=server)
    assert management.calls[2:] == [("ForgetFailure model n2", "m")]


def test_forget_where_nothing_failed_or_a_node_is_silent(management, server):
    result = run("forget", "model", "m", server=server)
    assert (result.exit_code, result.stdout) == (0, "model/m no failure to forget\n")
    management.forgotten = pb.ForgetFailureResponse(nodes=["n1"], unreachable=["n2"])
    result = run("forget", "model", "m", server=server)
    assert (result.exit_code, result.stdout) == (1, "model/m forgotten on n1\n")
    assert result.stderr == "error: no answer from node n2\n"


def test_forget_of_what_is_not_there_says_what_is_not(management, server):
    management.refusals = {"p": NoSuchResource("node", "n9")}
    result = run("forget", "predictor", "p", "--node", "n9", server=server)
    assert (result.exit_code, result.stderr) == (
        1,
        "Error from server (NotFound): node 'n9' not found\n",
    )


@pytest.mark.parametrize("words", [("node", "n1"), ("predictors",), ("pods", "x"), ()])
def test_forget_of_what_makes_no_sense_is_a_usage_error(words):
    assert run("forget", *words).exit_code == 2


# export and import


def lines(*documents: object) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)


def test_export_writes_what_owners_wrote_in_the_order_of_names(management, server):
    management.resources = {name: shown(name) for name in "ba"}
    result = run("export", server=server)
    assert (result.exit_code, result.stderr) == (0, "2 exported\n")
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        manifest("a"),
        manifest("b"),
    ]


def test_export_of_nothing_is_empty_and_imports(management, server):
    result = run("export", server=server)
    assert (result.stdout, result.stderr) == ("", "0 exported\n")
    result = run("import", "-f", "-", server=server, input="")
    assert (result.exit_code, result.stderr) == (0, "nothing to import\n")


def test_export_to_a_file_takes_its_place_only_when_complete(management, server, tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("before")
    result = run("export", "-o", str(path), server="127.0.0.1:1")
    assert result.exit_code == 1
    assert path.read_text() == "before"
    management.resources = {"a": shown("a")}
    assert run("export", "-o", str(path), server=server).exit_code == 0
    assert json.loads(path.read_text()) == manifest("a")
    assert list(tmp_path.iterdir()) == [path]
    gone = tmp_path / "gone" / "all.jsonl"
    result = run("export", "-o", str(gone), server=server)
    assert (result.exit_code, result.stderr) == (1, f"error: {gone}: no such file or directory\n")


def test_export_names_what_cannot_be_imported_and_writes_it(management, server):
    odd = shown("odd")
    odd["spec"]["storage"] = {"s3": {}}
    management.resources = {"odd": odd}
    result = run("export", server=server)
    assert json.loads(result.stdout)["metadata"] == {"name": "odd"}
    assert result.stderr == (
        "predictor/odd cannot be imported: spec.storage.s3.secretKey: required\n1 exported\n"
    )


def test_import_creates_what_is_missing_and_leaves_the_rest(management, server, tmp_path):
    management.resources = {"same": shown("same"), "other": shown("other")}
    path = tmp_path / "all.jsonl"
    path.write_text(lines(manifest("new"), manifest("other", "c"), manifest("same")))
    result = run("import", "-f", str(path), server=server)
    assert (result.exit_code, result.stdout) == (0, "predictor/new created\n")
    assert result.stderr == (
        "predictor/other differs, left as it is\n1 created, 1 different, 1 unchanged\n"
    )
    assert management.resources["new"] == manifest("new")
    assert management.resources["other"] == shown("other")
    result = run("import", "-f", str(path), "--overwrite", server=server)
    assert result.stdout == "predictor/other configured\n"
    assert result.stderr == "1 configured, 2 unchanged\n"
    assert management.resources["other"] == manifest("other", "c")


def test_import_in_a_dry_run_only_says(management, server):
    management.resources = {"other": shown("other")}
    text = lines(manifest("new"), manifest("other", "c"))
    words = ("import", "-f", "-", "--dry-run", "--overwrite")
    result = run(*words, server=server, input=text)
    assert result.stdout == (
        "predictor/new created (dry run)\npredictor/other configured (dry run)\n"
    )
    assert result.stderr == "1 configured, 1 created (dry run)\n"
    assert management.calls == [("Read PREDICTOR", "")]


def test_import_sends_nothing_where_any_line_is_invalid(management, server, tmp_path):
    bad = manifest("bad")
    del bad["spec"]["path"]
    path = tmp_path / "all.jsonl"
    text = lines(manifest("a"), bad, manifest("a", "b"), [1])
    path.write_text(text + "a: yaml\n\n" + "[" * 100_000 + "\n")
    result = run("import", "-f", str(path), server=server)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"error: {path}, line 2: spec.path: required",
        f"error: {path}, line 3: 'a' is on line 1 too",
        f"error: {path}, line 4: document: must be a mapping, not a list",
        f"error: {path}, line 5: not a JSON object, as export writes them",
        f"error: {path}, line 7: not a JSON object, as export writes them",
    ]
    assert management.calls == []


def test_import_goes_on_after_a_refusal_and_fails(management, server):
    management.refusals = {"a": InvalidRequest("spec", "not today")}
    names = [f"p{number}" for number in range(50)]
    text = lines(manifest("a"), *map(manifest, names))
    result = run("import", "-f", "-", server=server, input=text)
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [f"predictor/{name} created" for name in names]
    assert result.stderr == (
        "standard input, line 1: Error from server (Invalid): spec: not today\n"
        "50 created, 1 refused\n"
    )


def test_import_of_what_export_wrote_changes_nothing(management, server):
    management.resources = {name: shown(name) for name in "abc"}
    exported = run("export", server=server).stdout
    result = run("import", "-f", "-", server=server, input=exported)
    assert (result.stdout, result.stderr) == ("", "3 unchanged\n")
    management.resources = {}
    run("import", "-f", "-", server=server, input=exported)
    assert run("export", server=server).stdout == exported
