"""The documentation holds together: its files are valid, its links lead somewhere, its tables are
what the code says. The commands are run in tests/e2e/test_docs.py.
"""

import configparser
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from mesh.storage.keys import StorageKeys
from mesh.wire.documents import load_documents
from router.cli.serve import serve_command
from router.cli.validate import CHECKS
from tests.support import docgen, kube_tools
from tests.support.pages import DOCS, Block, blocks, name_of, pages
from tests.support.stand import ROOT

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", of("yaml"), ids=place)
def test_a_yaml_block_is_a_valid_file(block: Block):
    documents = load_documents(block.text)
    assert documents
    for document in documents:
        assert isinstance(document, dict)
        CHECKS[str(document["kind"])](document)


@pytest.mark.parametrize("block", of("json"), ids=place)
def test_a_json_block_is_json_and_a_storage_key_one_that_can_be_used(block: Block, tmp_path: Path):
    document = json.loads(block.text)
    if "access_key_id" in document:
        (tmp_path / "key").write_text(block.text)
        StorageKeys(tmp_path).get("key")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_somewhere(page: Path):
    for link in LINK.findall(page.read_text()):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_pages_that_manifests_name_are_there():
    said = {
        (path, *named)
        for path in (ROOT / "deploy").rglob("*.yaml")
        for named in re.findall(r"\b(docs/[-\w/]+\.md)(?:#([-\w]+))?", path.read_text())
    }
    assert said
    for path, page, anchor in said:
        assert (ROOT / page).exists(), path
        assert not anchor or anchor in anchors(ROOT / page), path


def test_the_settings_say_where_their_keys_are():
    (page,) = [page for page in PAGES if "controller-config" in docgen.parts_of(page)]
    said = (ROOT / "deploy/config/config.yaml").read_text()
    assert f"docs/{name_of(page)}#configuration has all keys" in said


def test_the_installation_says_on_which_kubernetes_it_was_tried():
    assert f"run on Kubernetes {kube_tools.VERSION} " in (DOCS / "install.md").read_text()


def anchors(page: Path) -> set[str]:
    """The headings as GitHub names them."""
    plain = (
        re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text())
    )
    return {heading.strip().replace(" ", "-") for heading in plain}


def test_what_export_writes_has_the_name_of_what_it_is():
    found = re.findall(r"export -o (\S+)", "".join(page.read_text() for page in PAGES))
    assert {name.strip("`,.") for name in found} == {"predictors.jsonl"}


def test_the_index_has_every_page():
    index = DOCS / "README.md"
    linked = set(LINK.findall(index.read_text()))
    there = {page.name for page in DOCS.glob("*.md")} - {index.name}
    assert there <= linked, "add a row to docs/README.md"


def test_the_house_has_every_package_of_the_import_contract_and_every_folder_of_tests():
    page = (DOCS / "architecture.md").read_text()
    house = page.partition("## The house")[2].partition("\n## ")[0]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = (
        contract["layers"]
        for contract in settings["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    assert "\n  >  ".join(layers) in house
    packages = {path.parent.name for path in (ROOT / "mesh").glob("*/__init__.py")}
    assert {name for name in packages if f"| `mesh/{name}` |" not in house} == set()
    tests = {path.parent.name for path in (ROOT / "tests").glob("*/__init__.py")}
    (row,) = (line for line in house.splitlines() if line.startswith("| `tests/`"))
    assert {name for name in tests if f"`{name}`" not in row} == set()


def test_the_generated_tables_are_what_the_code_says():
    stale = [name_of(page) for page in docgen.stale()]
    assert stale == [], "run: python -m tests.support.docgen"


def test_each_generated_table_is_in_one_page():
    found = [part for page in PAGES for part in docgen.parts_of(page)]
    assert sorted(found) == sorted(docgen.PARTS)


def test_a_table_that_is_not_current_is_seen():
    text = "a\n<!-- generated: limits -->\nold\n<!-- end -->\nb\n"
    assert "16 MiB" in docgen.current(text)
    assert docgen.current(docgen.current(text)) == docgen.current(text)
    assert docgen.current(text).startswith("a\n<!-- generated: limits -->\n\n| what |")


def test_the_unit_starts_serve_with_options_that_it_has(tmp_path: Path):
    (unit,) = of("ini")
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(unit.text)
    program, command, *arguments = shlex.split(parser["Service"]["ExecStart"])
    assert (ROOT / Path(program).relative_to("/opt/wml-serving")).exists()
    assert command == "serve"
    # The folder of programs is there only where `make setup` has been; others are made.
    arguments[arguments.index("--runtime-bin") + 1] = str(tmp_path)
    arguments += ["--runtime", str(ROOT / "deploy/runtimes/mlserver-1.x.yaml")]
    assert serve_command.make_context("serve", arguments).params["log_format"] == "json"
