"""The commands of the documentation, run as they stand there on one stand with the examples."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.pages import ROOT as CHECKOUT
from tests.support.pages import Block, Terminal, blocks, name_of, outputs, pages
from tests.support.s3 import S3Server
from tests.support.stand import Stand, standing

# Pages whose commands another test runs; the README's other commands are test_readme.py's.
ELSEWHERE = {"example-models.md": "test_example_models.py"}
# What `kubectl` does needs a cluster: tests/kube and tests/controller.
CLUSTER = "kubectl "
# Commands that are not run as they stand, and why.
NOT_RUN = {
    ("install.md", "make setup\n"): "`make test` has just run it, and others use what it made",
    ("install.md", "make run\n"): "test_readme.py does",
}
COMMANDS = {
    page: {block: output for block, output in outputs(page).items() if block.is_commands}
    for page in pages()
}
RUN = [page for page in pages() if COMMANDS[page] and name_of(page) not in ELSEWHERE]


@pytest.fixture(scope="module")
def examples(
    tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server, mnist: Path
) -> Iterator[Stand]:
    """A stand as `make run` starts one, but for its ports."""
    made = mnist.parents[1]
    with standing(tmp_path_factory.mktemp("docs"), s3_server) as stand:
        for path in made.rglob("*.*"):
            stand.put(str(path.relative_to(made)), path)
        stand.cli("apply", "-f", str(CHECKOUT / "deploy/example-predictors"))
        stand.reaches("example-mnist-predictor", "true Loaded  UpToDate")
        yield stand


@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_commands_of_a_page_do_what_it_says(page: Path, examples: Stand, tmp_path: Path):
    terminal = Terminal(tmp_path, examples)
    for block in files(page):
        terminal.write(block.words[0], block)
    for block, output in COMMANDS[page].items():
        if (block.page, block.text) not in NOT_RUN and not block.text.startswith(CLUSTER):
            terminal.run(block, output)


def test_the_readmes_serve_comes_up(examples: Stand, tmp_path: Path):
    readme = blocks(pages()[0])
    (shown,) = [block for block in readme if block.text.startswith("wml-serving serve ")]
    command = replace(shown, language="sh", words=("serves",))
    line = replace(shown, language="text", text="wml-serving is up: inference on port …\n")
    Terminal(tmp_path, examples).run(command, line)


def files(page: Path) -> list[Block]:
    """The programs that a page says how to name."""
    programs = [block for block in blocks(page) if block.language == "python"]
    assert all(block.words for block in programs), "```python NAME.py"
    return programs


def test_what_is_not_run_is_there():
    there = {(block.page, block.text) for found in COMMANDS.values() for block in found}
    assert set(NOT_RUN) <= there
    assert set(ELSEWHERE) <= {name_of(page) for page in pages()}
