"""config.yaml: over the defaults, or refused as a whole with the key that is wrong."""

import pytest

from mesh.controller.config import DEFAULTS, Configuration, read_config
from mesh.wire.documents import InvalidManifest


def of(text: str) -> dict[str, object]:
    return {"data": {"config.yaml": text}}


def test_nothing_written_is_the_defaults():
    assert read_config("") == read_config("{}") == DEFAULTS
    assert (DEFAULTS.pods_per_runtime, DEFAULTS.scale_to_zero.grace_period_seconds) == (2, 60)


def test_what_is_written_goes_over_the_defaults():
    config = read_config("scaleToZero: {gracePeriodSeconds: 5}")
    assert config.scale_to_zero.grace_period_seconds == 5
    assert config.scale_to_zero.enabled


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("podPerRuntime: 1", "podPerRuntime: unknown field, did you mean podsPerRuntime?"),
        ("podsPerRuntime: 0", "podsPerRuntime: must be greater than or equal to 1"),
        (
            "scaleToZero: {enabled: 'no'}",
            "scaleToZero.enabled: must be true or false, not a string",
        ),
        ("modelCache: {sizeLimit: '0'}", "modelCache.sizeLimit: must be more than 0"),
        ("a: 1\n---\nb: 2", "config.yaml: must be one document, not 2"),
    ],
)
def test_what_is_wrong_is_named(text: str, problem: str):
    with pytest.raises(InvalidManifest) as raised:
        read_config(text)
    assert raised.value.problems == (problem,)


def test_last_good_one_stays_and_a_problem_is_told_once():
    configuration = Configuration()
    assert configuration.now == DEFAULTS
    assert configuration.take(of("podsPerRuntime: 4")) == ()
    assert configuration.take(of("podsPerRuntime: no")) == (
        "podsPerRuntime: must be a whole number, not true or false",
    )
    assert configuration.take(of("podsPerRuntime: no")) is None
    assert configuration.now.pods_per_runtime == 4
    assert configuration.take(of("podsPerRuntime: 5")) == ()
    assert configuration.now.pods_per_runtime == 5
    assert configuration.take(None) == ()
    assert configuration.now == DEFAULTS


def test_what_was_valid_last_is_recalled_in_the_next_life_where_the_file_is_wrong():
    configuration = Configuration()
    assert configuration.take(of("podsPerRuntime: 0"))
    configuration.recall(of("podsPerRuntime: 4"))
    assert configuration.now.pods_per_runtime == 4
    assert configuration.good == "podsPerRuntime: 4"
    assert configuration.take(of("podsPerRuntime: 5")) == ()
    assert (configuration.now.pods_per_runtime, configuration.good) == (5, "podsPerRuntime: 5")


def test_nothing_is_recalled_over_what_is_valid_or_where_there_is_no_file():
    configuration = Configuration()
    configuration.recall(of("podsPerRuntime: 4"))
    assert configuration.now == DEFAULTS
    assert configuration.take(of("")) == ()
    configuration.recall(of("podsPerRuntime: 4"))
    assert configuration.now == DEFAULTS


def test_what_another_version_kept_and_is_not_valid_now_is_not_recalled():
    configuration = Configuration()
    assert configuration.take(of("podsPerRuntime: 0"))
    configuration.recall(of("setting-of-another-version: 4"))
    assert (configuration.now, configuration.good) == (DEFAULTS, None)
