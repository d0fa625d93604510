"""The adapter's log lines say which model they are about, also where the line itself does not."""

import json
import logging
from pathlib import Path

import pytest

from mesh.ops.logs import JsonFormatter
from tests.support.adapters import parts_in


@pytest.fixture
def lines():
    """Every line of the adapter, as an object."""
    found: list[dict[str, object]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    handler = Lines()
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("mesh.adapters")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.setLevel(before)
    logger.removeHandler(handler)


async def test_load_that_is_not_undone_names_its_model_and_no_other(tmp_path: Path, lines):
    async with parts_in(tmp_path) as parts, parts.life() as client:
        await client.ready()
        parts.server.broken.add("p-1")
        parts.server.stubborn.add("p-1")
        with pytest.raises(Exception, match="it is broken"):
            await client.load("p-1")
        await client.load("p-2")
    (left,) = [line for line in lines if line["message"] == "failed load was not undone"]
    assert left["model"] == "p-1"
    assert "it will not" in str(left["cause"])
    assert {line["model"] for line in lines if line["message"] == "model loaded"} == {"p-2"}
    (listening,) = [line for line in lines if line["message"] == "adapter listening"]
    assert "model" not in listening
