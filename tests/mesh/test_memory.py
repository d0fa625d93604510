"""Memory that is given back."""

import sys

import psutil
import pytest

from mesh.ops.memory import give_back

BLOCKS, BLOCK = 20_000, 3_000


@pytest.mark.skipif(sys.platform != "linux", reason="by glibc alone")
def test_what_was_freed_below_what_stays_goes_back():
    blocks = [bytes(BLOCK) for _ in range(BLOCKS)]
    stays = blocks.pop()
    blocks.clear()
    held = psutil.Process().memory_info().rss
    give_back()
    assert held - psutil.Process().memory_info().rss > BLOCKS * BLOCK / 2
    assert len(stays) == BLOCK
