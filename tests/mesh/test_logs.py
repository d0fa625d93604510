"""Log lines: what stands in them, in both forms, and what never does."""

import json
import logging
import shlex
from collections.abc import Iterator

import pytest

from mesh.ops.logs import JsonFormatter, KeyValueFormatter, LogFormat, bound, configure


def line(formatter: logging.Formatter, message: str = "model loaded", **fields: object) -> str:
    record = logging.LogRecord("mesh.agent", logging.INFO, __file__, 1, message, (), None)
    vars(record).update(fields)
    return formatter.format(record)


@pytest.fixture
def root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.parametrize(
    "value", ["plain", "two words", 'say "so"', "a=b", "two\nlines", "", "ünïcode", 3, 0.25, None]
)
def test_key_value_line_can_be_split_again(value: object):
    shown = line(KeyValueFormatter(), cause=value)
    assert "\n" not in shown
    *_, last = shlex.split(shown.replace("\\n", "\n"))
    assert last.split("=", 1) == ["cause", json.loads(json.dumps(str(value)))]


def test_key_value_line_begins_with_time_level_and_place():
    time, level, logger, *message = line(KeyValueFormatter(), model="p-1").split()
    assert time.endswith("+00:00")
    assert (level, logger, message) == ("INFO", "mesh.agent", ["model", "loaded", "model=p-1"])


def test_json_line_is_one_object_with_the_fields_as_they_are():
    shown = json.loads(line(JsonFormatter(), model="p-1", size_bytes=3, cause='a "b"\nc'))
    assert shown.pop("time").endswith("+00:00")
    assert shown == {
        "level": "INFO",
        "logger": "mesh.agent",
        "message": "model loaded",
        "model": "p-1",
        "size_bytes": 3,
        "cause": 'a "b"\nc',
    }


@pytest.mark.parametrize("formatter", [KeyValueFormatter(), JsonFormatter()])
def test_bound_fields_are_in_every_line_within_and_in_none_after(formatter: logging.Formatter):
    with bound(request_id="r1"), bound(model="p-1"):
        within = line(formatter)
        assert "r1" in within
        assert "p-1" in within
        assert "own" in line(formatter, model="own")  # a line's own field wins
        assert "p-1" not in line(formatter, model="own")
    assert "r1" not in line(formatter)


@pytest.mark.parametrize("form", list(LogFormat))
@pytest.mark.usefixtures("root_as_before")
def test_configured_process_logs_to_stderr_in_the_form(form: LogFormat, capsys):
    configure(form, "warning")
    log = logging.getLogger("mesh.test")
    log.info("not this")
    try:
        int("of a test")
    except ValueError:
        log.exception("task died", extra={"task": "t"})
    out, err = capsys.readouterr()
    assert out == ""
    assert "not this" not in err
    assert "of a test" in err
    if form is LogFormat.JSON:
        (only,) = err.splitlines()
        assert json.loads(only)["exception"].endswith("'of a test'")


@pytest.mark.usefixtures("root_as_before")
def test_libraries_that_would_log_requests_are_quiet():
    configure(LogFormat.KEY_VALUE, "debug")
    assert not logging.getLogger("botocore.endpoint").isEnabledFor(logging.INFO)
