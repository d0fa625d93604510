"""Logs: a constant message and fields, as key=value or as JSON, one line an event, to stderr.

Fields come by `extra=`; those of a request or a model may also come from `bound`, by context.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum

# What every record has, so that whatever else is in it came by `extra=`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
NO_FIELDS: Mapping[str, object] = {}

_bound: ContextVar[Mapping[str, object]] = ContextVar("bound", default=NO_FIELDS)


class LogFormat(StrEnum):
    KEY_VALUE = "text"
    JSON = "json"


@contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Adds fields to every line that is logged within, in this task and those it starts."""
    token = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


class KeyValueFormatter(logging.Formatter):
    """`time level logger message key=value ...`; values with spaces or quotes are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_time(record)} {record.levelname} {record.name} {record.getMessage()}"
        line = " ".join([head, *(f"{key}={_text(value)}" for key, value in _fields(record))])
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(form: LogFormat, level: str) -> None:
    """Sends all logs of this process to stderr in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.JSON else KeyValueFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("botocore", "boto3", "urllib3", "s3transfer", "grpc"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _fields(record: logging.LogRecord) -> list[tuple[str, object]]:
    given = {key: value for key, value in vars(record).items() if key not in STANDARD}
    return list({**_bound.get(), **given}.items())


def _text(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or set(text) & set(' "=\n') else text


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
