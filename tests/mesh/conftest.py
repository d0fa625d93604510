"""Tests of the agent run in virtual time; the others touch sockets, files or threads."""

import asyncio
from collections.abc import Callable, Mapping

import pytest

from tests.support.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name.startswith("test_agent_"):
        return {"virtual": VirtualLoop}
    return {"real": asyncio.new_event_loop}
