"""Tests of what works in the background run in virtual time."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.support.virtual_time import VirtualLoop

VIRTUAL = (
    "test_queue.py",
    "test_reflector.py",
    "test_leader.py",
    "test_site.py",
    "test_estate.py",
    "test_killed.py",
    "test_fence.py",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in VIRTUAL:
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}
