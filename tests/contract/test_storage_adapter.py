"""Keys of type `local` through the whole adapter, by its setting, to the real MLServer."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from mesh.adapters.main import serve_adapter
from mesh.ops.tasks import Tasks
from tests.support.adapters import AT_ONCE, AdapterClient, failure, settings_for
from tests.support.mlserver import MLServerProcess, digits_svm, mlserver

__all__ = ["digits_svm", "mlserver"]


@pytest.fixture
async def client(mlserver: MLServerProcess, tmp_path: Path) -> AsyncIterator[AdapterClient]:
    """An adapter that may read below `tmp_path/srv`; its keys are in `tmp_path/keys`."""
    tasks, stop = Tasks(), asyncio.Event()
    (tmp_path / "keys").mkdir()
    with tempfile.TemporaryDirectory(prefix="adapter-") as sockets:
        settings = settings_for(
            mlserver.root,
            Path(sockets) / "a.sock",
            runtime_port=mlserver.grpc_port,
            storage_config_dir=tmp_path / "keys",
            local_storage_roots=f"/nowhere:{tmp_path}/srv",
        )
        life = tasks.spawn(serve_adapter(settings, stop), "adapter")
        target = f"unix:{settings.adapter_socket}"
        async with grpc.aio.insecure_channel(target, options=AT_ONCE) as channel:
            await channel.channel_ready()
            client = AdapterClient(channel)
            await client.ready()
            yield client
        stop.set()
        await asyncio.wait([life])
        await tasks.close()


async def test_local_model_is_loaded_from_an_allowed_root_and_from_no_other(
    client: AdapterClient, digits_svm: Path, tmp_path: Path
) -> None:
    for name in ("srv", "etc"):
        (tmp_path / name).mkdir()
        shutil.copy(digits_svm, tmp_path / name / "svm.joblib")
        entry = {"type": "local", "root": str(tmp_path / name)}
        (tmp_path / "keys" / name).write_text(json.dumps(entry))
    loaded = await client.load("m", "svm.joblib", storage_key="srv", bucket=None)
    assert loaded.sizeInBytes > 0
    await client.unload("m")
    assert (tmp_path / "srv" / "svm.joblib").exists()
    _, reason = await failure(client.load("n", "svm.joblib", storage_key="etc", bucket=None))
    where = tmp_path / "etc"
    assert reason == f"folder '{where}' is not in LOCAL_STORAGE_ROOTS (storage key 'etc')"
