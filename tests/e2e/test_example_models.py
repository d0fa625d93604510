"""The example models, each in a real MLServer: docs/example-models.md, run as it stands there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.pages import DOCS, Terminal, blocks, compare, outputs
from tests.support.s3 import S3Server
from tests.support.stand import ROOT, Stand, standing

PAGE = DOCS / "example-models.md"
FOLDER = ROOT / "deploy/example-predictors"
PREDICTORS = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))]
NAMES = [predictor["metadata"]["name"] for predictor in PREDICTORS]


@pytest.fixture(scope="module")
def examples(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, mnist: Path
) -> Iterator[Stand]:
    """A stand with every example model under its path, and every Predictor of the folder."""
    made = mnist.parents[1]
    with standing(tmp_path_factory.mktemp("examples"), s3_server) as stand:
        for path in made.rglob("*.*"):
            stand.put(str(path.relative_to(made)), path)
        stand.cli("apply", "-f", str(FOLDER))
        yield stand


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, examples: Stand) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("checkout"), examples)


def test_the_page_shows_the_predictors_of_the_folder_and_no_other():
    shown = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]
    assert sorted(shown, key=str) == sorted(PREDICTORS, key=str)
    assert all(f"`{predictor['spec']['path']}`" in PAGE.read_text() for predictor in PREDICTORS)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_model_is_loaded(examples: Stand, name: str):
    examples.reaches(name, "true Loaded  UpToDate")


@pytest.mark.parametrize(
    ("block", "output"), outputs(PAGE).items(), ids=lambda block: getattr(block, "place", None)
)
def test_a_request_of_the_page_has_the_answer_that_the_page_shows(terminal, block, output):
    assert output is not None
    terminal.run(block, output)


def test_each_predictor_has_a_request_on_the_page():
    shown = [output.text for output in outputs(PAGE).values() if output]
    assert all(any(f'"{name}-' in text for text in shown) for name in NAMES)


@pytest.mark.parametrize(
    "printed",
    [
        '{"a": [1.5], "b": "x"}',
        '{"a": [2.5], "b": "y"}',
        '{"a": [2.5]}',
        '{"a": [2.5, 2.5], "b": "x"}',
        '{"a": 2.5, "b": "x"}',
    ],
)
def test_an_answer_that_differs_from_the_page_is_seen(printed: str):
    shown = '{"a": [2.5], "b": "x"}'
    assert compare(shown, '{"a": [2.5000000001], "b": "x", "c": 1}', "json") == ""
    assert compare(shown, printed, "json")


@pytest.mark.parametrize("printed", ["a  b\nd 5", "d 4 e\na b", "d x e", ""])
def test_lines_that_differ_from_the_page_are_seen(printed: str):
    assert compare("a b\nd … e", "first\na  b\nother\nd 4 e", "text") == ""
    assert compare("a b\nd … e", printed, "text")
