"""docs/troubleshooting.md: its messages are those that the code gives, and all that matter."""

import re

import pytest

from tests.support.messages import messages, quoted, raised_in
from tests.support.pages import DOCS, outputs, pages
from tests.support.stand import ROOT

PAGE = DOCS / "troubleshooting.md"
TEXT = PAGE.read_text()
QUOTED = quoted(PAGE)
# Messages that the source does not have in one piece; the commands of the pages print them.
PRINTED = {
    "SERVER: Received message larger than max (<n> vs. 16777216)",
    "<field>: unknown field, did you mean <field>?",
}
SOURCES = (
    "mesh/core/errors.py",
    "mesh/storage/port.py",
    "mesh/storage/s3_errors.py",
    "mesh/adapters/errors.py",
)
# What no user meets, and why.
INTERNAL = {
    "model <> is not on this node": "between nodes, which then look elsewhere",
    "<> was changed by somebody else": "the step is taken again",
    "the load of <> was stopped by an unload": "the one who would read it asked for the unload",
    "model <> is not loaded": "between adapter and node",
    "<> is not ready": "the node waits, and says so in its own words",
}


def test_the_page_quotes_messages():
    assert len(QUOTED) > 40


@pytest.mark.parametrize("message", [message for message in QUOTED if message not in PRINTED])
def test_a_message_of_the_page_is_one_of_the_code(message: str):
    assert any(found.can_be(message) for found in messages()), "no such message in mesh or router"


@pytest.mark.parametrize("message", sorted(PRINTED))
def test_a_message_of_others_is_shown_by_a_command(message: str):
    pattern = ".+".join(map(re.escape, re.split("<[a-z]+>", message)))
    shown = (output for page in pages() for output in outputs(page).values() if output)
    assert message in QUOTED
    assert any(re.search(pattern, output.text) for output in shown)


@pytest.mark.parametrize("source", SOURCES)
def test_each_message_of_an_error_is_on_the_page(source: str):
    missing = {
        f"{found.place}: {found.text}"
        for found in raised_in(ROOT / source)
        if found.text not in INTERNAL
        and found.text not in TEXT
        and not any(found.can_be(text) for text in QUOTED)
    }
    assert missing == set(), "add them to docs/troubleshooting.md"


def test_messages_that_differ_in_a_word_are_not_taken_for_one_another():
    assert any(found.can_be("endpoint <url> cannot be reached") for found in messages())
    assert not any(found.can_be("endpoint <url> can not be reached") for found in messages())
