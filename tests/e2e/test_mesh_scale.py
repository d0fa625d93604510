"""`make bench-scale` over few Predictors: it starts and says its figures, whatever they are."""

import re

import pytest

from tests.support.programs import run_program

WITHIN_S = 200.0
EACH_OF_THREE = 3


@pytest.mark.timeout(WITHIN_S + 30)
def test_scale_prints_its_figures_and_the_aims():
    words = ("--predictors", "2000", "--changes", "10")
    code, said = run_program("tests.bench.scale", *words, within_s=WITHIN_S)
    assert code == 0, said
    for count, line in (
        (1, r"a node over nothing +\d+ MB"),
        (1, r"2000 Predictors written +\d+\.\d s"),
        (EACH_OF_THREE, r"a node's start until ready +\d+\.\d s +aim < 20 s"),
        (EACH_OF_THREE, r"its memory +-?\d+ B a Predictor, \d+ MB in all +aim < 1024 B"),
        (1, r"a change until all 3 nodes show it +p50 \d+ ms, p99 \d+ ms, .* aim p99 < 100 ms"),
    ):
        assert len(re.findall(f"^{line}$", said, re.MULTILINE)) == count, f"{line}\n{said}"
