"""`wml-serving convert`: ours on standard output, what has no equal on standard error."""

from pathlib import Path

import yaml
from click.testing import CliRunner, Result

from router.cli.main import wml_serving
from tests.core.test_wire_convert import PREDICTOR, RUNTIME, SERVICE


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(wml_serving, ["convert", *arguments], input=stdin)


def test_files_come_out_in_order_and_notes_are_apart(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(PREDICTOR)
    (tmp_path / "b.yaml").write_text(f"{SERVICE}\n---\n{RUNTIME}")
    result = run("-f", str(tmp_path))
    assert result.exit_code == 0
    kinds = [item["kind"] for item in yaml.safe_load_all(result.stdout)]
    assert kinds == ["Predictor", "Predictor", "ClusterServingRuntime"]
    assert "Predictor/mnist: spec.gpu: left out" in result.stderr
    assert "left out" not in result.stdout


def test_what_it_writes_is_valid(tmp_path: Path):
    (tmp_path / "new.yaml").write_text(run("-f", "-", stdin=f"{PREDICTOR}\n---\n{SERVICE}").stdout)
    checked = CliRunner().invoke(wml_serving, ["validate", "-f", str(tmp_path / "new.yaml")])
    assert checked.exit_code == 0, checked.output


def test_object_without_an_equal_is_an_error_and_stops_no_other():
    result = run("-f", "-", stdin=f"{PREDICTOR}\n---\nkind: Pod\napiVersion: v1\n")
    assert result.exit_code == 1
    assert [item["kind"] for item in yaml.safe_load_all(result.stdout)] == ["Predictor"]
    assert result.stderr.endswith("error: 1 of 2 objects were not converted\n")


def test_file_that_cannot_be_read_is_refused_whole():
    result = run("-f", "-", stdin="a: [")
    assert (result.exit_code, result.stdout) == (1, "")
