"""Fixtures of the contract suites."""

from collections.abc import AsyncIterator

import pytest

from mesh.registry.port import Registry
from tests.contract.registry_stores import IMPLEMENTATIONS, Opening, Store


@pytest.fixture(params=IMPLEMENTATIONS, scope="session")
def open_store(request: pytest.FixtureRequest) -> Opening:
    """Opens an empty registry, of each kind in turn."""
    return IMPLEMENTATIONS[request.param](request)


@pytest.fixture
async def store(open_store: Opening) -> AsyncIterator[Store]:
    async with open_store() as opened:
        yield opened


@pytest.fixture
def registry(store: Store) -> Registry:
    return store.registry
