"""What every folder of tests may use."""

import pytest

pytest_plugins = ["tests.support.s3", "tests.support.etcd"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="outages and scenarios as long as in life")
    parser.addoption("--real", action="store_true", help="the mesh's scenarios with real MLServers")


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether a scenario takes its time: minutes, with a --timeout to match."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def is_real(request: pytest.FixtureRequest) -> bool:
    """Whether the runtimes of a mesh are MLServers, which do only what MLServer does."""
    return bool(request.config.getoption("--real"))
