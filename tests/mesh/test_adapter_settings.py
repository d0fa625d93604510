"""The adapter's settings as the environment gives them."""

import asyncio
from pathlib import Path

import pytest

from mesh.adapters.main import serve_adapter
from mesh.ops.settings import AdapterSettings, InvalidSettings

REQUIRED = {"ADAPTER_SOCKET": "/run/a.sock", "CONTAINER_MEM_REQ_BYTES": "1073741824"}


def test_settings_have_the_defaults_that_users_know() -> None:
    settings = AdapterSettings.read(REQUIRED)
    assert settings.adapter_socket == Path("/run/a.sock")
    assert settings.runtime_port == 8001
    assert settings.mem_buffer_bytes == 256 * 1024 * 1024
    assert settings.capacity_bytes == 768 * 1024 * 1024
    assert settings.loading_concurrency == 1
    assert settings.loadtime_timeout == 90_000
    assert settings.default_modelsize == 1_000_000
    assert settings.modelsize_multiplier == 1.25
    assert settings.limit_per_model_concurrency == 0
    assert settings.root_model_dir == Path("/models")
    assert settings.storage_config_dir == Path("/storage-config")


def test_settings_that_are_given_win_and_empty_ones_are_not_given() -> None:
    given = {**REQUIRED, "RUNTIME_PORT": "9001", "LOADTIME_TIMEOUT": "", "HOME": "/root"}
    settings = AdapterSettings.read(given)
    assert settings.runtime_port == 9001
    assert settings.loadtime_timeout == 90_000


def test_settings_report_all_problems_together() -> None:
    wrong = {"RUNTIME_PORT": "0", "LOADING_CONCURRENCY": "x", "MODELSIZE_MULTIPLIER": "-1"}
    with pytest.raises(InvalidSettings) as caught:
        AdapterSettings.read(wrong)
    names = {problem.split(":")[0] for problem in caught.value.problems}
    assert names == {*wrong, "ADAPTER_SOCKET", "CONTAINER_MEM_REQ_BYTES"}
    assert "ADAPTER_SOCKET: required" in caught.value.problems


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CONTAINER_MEM_REQ_BYTES", "1000"),
        ("ADAPTER_SOCKET", "relative.sock"),
        ("ADAPTER_SOCKET", "/" + "x" * 107),
        ("ROOT_MODEL_DIR", "models"),
        ("MLSERVER_MODELS_SUBDIR", "../elsewhere"),
        ("MODELSIZE_MULTIPLIER", "inf"),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=name):
        AdapterSettings.read({**REQUIRED, name: value})


def test_settings_each_have_a_description_for_the_reference() -> None:
    reference = AdapterSettings.reference()
    assert all(description for _, _, description in reference)
    assert ("ADAPTER_SOCKET", "required") in {(name, default) for name, default, _ in reference}
    assert ("LOADTIME_TIMEOUT", "90000") in {(name, default) for name, default, _ in reference}


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}'])
async def test_implementations_that_are_no_table_are_refused(text: str, tmp_path: Path) -> None:
    given = {**REQUIRED, "ROOT_MODEL_DIR": str(tmp_path), "MLSERVER_IMPLEMENTATIONS": text}
    with pytest.raises(InvalidSettings, match="MLSERVER_IMPLEMENTATIONS"):
        await serve_adapter(AdapterSettings.read(given), asyncio.Event())


async def test_server_type_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    settings = AdapterSettings.read({**REQUIRED, "ROOT_MODEL_DIR": str(tmp_path)})
    with pytest.raises(InvalidSettings, match="'cobol' is not known; there is mlserver"):
        await serve_adapter(settings, asyncio.Event(), "cobol")
