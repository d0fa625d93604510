"""The table, byte by byte as kubectl prints it, and the ages in it."""

from datetime import UTC, datetime

import pytest

from router.cli.table import COLUMNS, Table, age, duration, header, row

NOW = datetime(2024, 1, 3, 12, 0, 0, tzinfo=UTC)


def test_table_of_the_documentation():
    """The first and the third table of the walk-through; an empty cell keeps its width."""
    name = "example-mnist-predictor"
    loading = (name, "sklearn", "true", "Loading", "", "UpToDate", "60s")
    moving = (name, "sklearn", "true", "Loaded", "Loading", "InProgress", "10m")
    assert Table().lines([COLUMNS, loading, moving]) == [
        "NAME                      TYPE      AVAILABLE   ACTIVEMODEL   TARGETMODEL   TRANSITION  "
        " AGE",
        "example-mnist-predictor   sklearn   true        Loading                     UpToDate    "
        " 60s",
        "example-mnist-predictor   sklearn   true        Loaded        Loading       InProgress  "
        " 10m",
    ]


def test_columns_are_at_least_six_wide_and_never_shrink():
    table = Table()
    assert table.lines([("a", "b")]) == ["a     b"]
    assert table.lines([("long-name", "b")]) == ["long-name   b"]
    assert table.lines([("a", "b")]) == ["a           b"]


def test_row_of_a_predictor():
    resource = {
        "metadata": {"name": "x", "creationTimestamp": "2024-01-03T11:59:00Z"},
        "spec": {"modelType": {"name": "sklearn"}},
        "status": {
            "available": False,
            "activeModelState": "Failed",
            "targetModelState": "Loading",
            "transitionStatus": "InProgress",
            "grpcEndpoint": "grpc://wml-serving:8033",
            "totalCopies": 2,
            "failedCopies": 1,
            "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no\nsuch  file"},
        },
    }
    short = ("x", "sklearn", "false", "Failed", "Loading", "InProgress", "60s")
    assert row(resource, now=NOW, wide=False) == short
    more = ("2", "1", "grpc://wml-serving:8033", "no such file")
    assert row(resource, now=NOW, wide=True) == short + more
    assert len(header(wide=True)) == len(short + more)


def test_row_of_a_predictor_without_status_is_empty_where_nothing_is_known():
    assert row({"metadata": {"name": "x"}, "spec": {}}, now=NOW, wide=True) == (
        ("x", "", "", "", "", "", "<unknown>", "", "", "", "")
    )


MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0, "0s"),
        (60, "60s"),
        (119, "119s"),
        (120, "2m"),
        (125, "2m5s"),
        (10 * MINUTE - 1, "9m59s"),
        (10 * MINUTE + 59, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (5 * HOUR + 12 * MINUTE + 59, "5h12m"),
        (8 * HOUR + 12 * MINUTE, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY, "2d"),
        (3 * DAY + 4 * HOUR, "3d4h"),
        (8 * DAY + 4 * HOUR, "8d"),
        (2 * YEAR - 1, "729d"),
        (2 * YEAR, "2y"),
        (3 * YEAR + 5 * DAY, "3y5d"),
        (8 * YEAR + 5 * DAY, "8y"),
    ],
)
def test_duration_in_kubernetes_words(age_s, expected):
    assert duration(age_s) == expected


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2024-01-03T11:58:00Z", "2m"),
        ("2024-01-03T13:00:00+02:00", "60m"),
        ("2024-01-03T12:00:01Z", "0s"),
        ("2024-01-03T12:00:02Z", "<invalid>"),
        ("", "<unknown>"),
        ("yesterday", "<unknown>"),
        ("2024-01-03T11:58:00", "<unknown>"),
    ],
)
def test_age(created, expected):
    assert age(created, NOW) == expected
