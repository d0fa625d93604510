"""docs/setup-storage.md: its entries can be used, its fields and messages are the code's, all."""

import json
import re
from pathlib import Path

import pytest

from mesh.storage.accounts import ACCOUNTS
from mesh.storage.keys import OVERRIDES, StorageKeys
from mesh.storage.s3 import MOST_OBJECTS
from mesh.storage.s3_clients import READ_TIMEOUT_S
from tests.support.messages import QUOTED as FIRST_CELL
from tests.support.messages import Message, messages, raised_in
from tests.support.pages import DOCS, Block, blocks
from tests.support.stand import ROOT

PAGE = DOCS / "setup-storage.md"
TEXT = PAGE.read_text()
MESSAGES = TEXT.split("## What messages mean\n")[1]
BLOCKS = [block for block in blocks(PAGE) if block.language == "json"]
QUOTED = FIRST_CELL.findall(MESSAGES)
FIELD = re.compile(r"^\| `([a-z_]+)` \|([^|]*)\|", re.M)
SOURCES = [ROOT / "mesh" / "storage" / name for name in ("port.py", "s3_errors.py", "local.py")]
FURTHER = [ROOT / "mesh" / "storage" / name for name in ("accounts.py", "keys.py", "names.py")]


def place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", BLOCKS, ids=place)
def test_a_json_block_is_an_entry_that_can_be_used(block: Block, tmp_path: Path):
    (tmp_path / "key").write_text(block.text)
    account = StorageKeys(tmp_path).get("key")
    assert set(json.loads(block.text)) <= set(type(account).model_fields)


def test_the_page_has_an_entry_of_each_type_and_kind():
    entries = [json.loads(block.text) for block in BLOCKS]
    assert {entry["type"] for entry in entries} == set(ACCOUNTS)
    s3 = [entry for entry in entries if entry["type"] == "s3"]
    assert {"access_key_id" in entry for entry in s3} == {True, False}
    assert any("certificate" in entry for entry in s3)


@pytest.mark.parametrize("kind", sorted(ACCOUNTS))
def test_each_field_of_a_type_is_in_its_table_with_its_default(kind: str):
    section = TEXT.split(f"## Type {kind}\n")[1].split("\n## ")[0]
    told = {name: default.strip(" `") for name, default in FIELD.findall(section)}
    fields = ACCOUNTS[kind].model_fields
    assert told == {
        name: "required" if field.is_required() else str(field.default or "")
        for name, field in fields.items()
    }


def test_numbers_and_names_on_the_page_are_the_codes():
    assert f"At most {MOST_OBJECTS:,} objects a model" in TEXT
    assert READ_TIMEOUT_S == 10
    assert all(f"`{name}`" in TEXT for name in OVERRIDES)


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_of_the_page_is_one_of_the_code(message: str):
    assert any(found.can_be(message) for found in [*messages(), *parts()])


def parts() -> list[Message]:
    """Short ones, that another message has in it."""
    return [found for source in [*SOURCES, *FURTHER] for found in raised_in(source)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_each_message_of_storage_is_on_the_page(source: Path):
    missing = {
        f"{found.place}: {found.text}"
        for found in raised_in(source)
        if found.text not in MESSAGES and not any(found.can_be(text) for text in QUOTED)
    }
    assert missing == set()
