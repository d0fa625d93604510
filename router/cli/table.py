"""Predictors as kubectl prints them: the table with its widths and ages."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

COLUMNS = ("NAME", "TYPE", "AVAILABLE", "ACTIVEMODEL", "TARGETMODEL", "TRANSITION", "AGE")
WIDE_COLUMNS = ("COPIES", "FAILEDCOPIES", "ENDPOINT", "LASTFAILURE")
PADDING = 3
MIN_WIDTH = 6
MINUTE_S = 60
HOUR_S = 60 * MINUTE_S
DAY_S = 24 * HOUR_S
YEAR_S = 365 * DAY_S


class Table:
    """Lines of cells under each other. Widths only grow, so that a watch stays aligned."""

    def __init__(self) -> None:
        self._widths: list[int] = []

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The rows as text; the last cell of a row is not padded."""
        for row in rows:
            self._widths += [MIN_WIDTH] * (len(row) - len(self._widths))
            for column, cell in enumerate(row[:-1]):
                self._widths[column] = max(self._widths[column], len(cell) + PADDING)
        return [
            "".join(
                cell.ljust(width) for cell, width in zip(row, self._widths, strict=True)
            ).rstrip()
            for row in rows
        ]


def header(*, wide: bool) -> tuple[str, ...]:
    return COLUMNS + WIDE_COLUMNS if wide else COLUMNS


def row(resource: dict[str, Any], *, now: datetime, wide: bool) -> tuple[str, ...]:
    """A Predictor's cells; what it has no value for is empty."""
    metadata, spec = resource["metadata"], resource["spec"]
    status = resource.get("status", {})
    cells = (
        metadata["name"],
        spec.get("modelType", {}).get("name", ""),
        text(status.get("available", "")),
        status.get("activeModelState", ""),
        status.get("targetModelState", ""),
        status.get("transitionStatus", ""),
        age(metadata.get("creationTimestamp", ""), now),
    )
    return cells + _wide_cells(status) if wide else cells


def _wide_cells(status: dict[str, Any]) -> tuple[str, ...]:
    failure = status.get("lastFailureInfo", {})
    return (
        text(status.get("totalCopies", "")),
        text(status.get("failedCopies", "")),
        status.get("grpcEndpoint", ""),
        " ".join(str(failure.get("message") or failure.get("reason", "")).split()),
    )


def age(created: str, now: datetime) -> str:
    """How long ago an RFC 3339 time was, in kubectl's way; a clock 1 s behind is forgiven."""
    try:
        age_s = int((now - datetime.fromisoformat(created)).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    return "<invalid>" if age_s < -1 else duration(max(age_s, 0))


def duration(age_s: int) -> str:
    """Seconds in the words of Kubernetes: exact while short, then ever coarser."""
    if age_s < 2 * MINUTE_S:
        return f"{age_s}s"
    if age_s < 10 * MINUTE_S:
        return _two(age_s, MINUTE_S, "m", 1, "s")
    if age_s < 3 * HOUR_S:
        return f"{age_s // MINUTE_S}m"
    if age_s < 8 * HOUR_S:
        return _two(age_s, HOUR_S, "h", MINUTE_S, "m")
    if age_s < 2 * DAY_S:
        return f"{age_s // HOUR_S}h"
    if age_s < 8 * DAY_S:
        return _two(age_s, DAY_S, "d", HOUR_S, "h")
    if age_s < 2 * YEAR_S:
        return f"{age_s // DAY_S}d"
    if age_s < 8 * YEAR_S:
        return _two(age_s, YEAR_S, "y", DAY_S, "d")
    return f"{age_s // YEAR_S}y"


def _two(age_s: int, large_s: int, large: str, small_s: int, small: str) -> str:
    """Two units, the smaller one left out where it is zero."""
    rest = age_s % large_s // small_s
    return f"{age_s // large_s}{large}" + (f"{rest}{small}" if rest else "")


def text(value: object) -> str:
    """A value as a cell: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
