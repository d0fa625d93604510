"""The adapter as a process of its own, with the real store and the real MLServer beside it."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.support.adapters import AT_ONCE, READY, AdapterClient, failure, files_below
from tests.support.gated_proxy import GatedProxy
from tests.support.lives import Life
from tests.support.mlserver import MLServerProcess, digits_svm, mlserver
from tests.support.s3 import S3Server, s3_server

__all__ = ["digits_svm", "mlserver", "s3_server"]

PROGRAM = """
from mesh.adapters.main import run_program
from mesh.ops.settings import AdapterSettings
run_program(AdapterSettings.read())
"""
PATH = "sklearn/mnist-svm.joblib"
LIMIT_S = 10.0


@dataclass
class Place:
    """Where an adapter's process finds everything."""

    mlserver: MLServerProcess
    proxy: GatedProxy
    socket: Path
    keys: Path

    def environment(self, **settings: str) -> dict[str, str]:
        return {
            **os.environ,  # noqa: TID251 - handed on
            "ADAPTER_SOCKET": str(self.socket),
            "RUNTIME_PORT": str(self.mlserver.grpc_port),
            "ROOT_MODEL_DIR": str(self.mlserver.root),
            "STORAGE_CONFIG_DIR": str(self.keys),
            "CONTAINER_MEM_REQ_BYTES": "1073741824",
            **settings,
        }

    @asynccontextmanager
    async def process(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, AdapterClient]]:
        """Killed at the end, if it still lives."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=self.environment()
        )
        with Life(process.pid):
            target = f"unix:{self.socket}"
            async with grpc.aio.insecure_channel(target, options=AT_ONCE) as channel:
                yield process, AdapterClient(channel)
        await process.wait()

    def left(self) -> set[str]:
        return files_below(self.mlserver.root)


@pytest.fixture
def place(
    mlserver: MLServerProcess, s3_server: S3Server, digits_svm: Path, tmp_path: Path
) -> Iterator[Place]:
    bucket = s3_server.bucket()
    s3_server.put(bucket, PATH, digits_svm)
    with s3_server.proxy() as proxy, tempfile.TemporaryDirectory(prefix="adapter-") as sockets:
        keys = tmp_path / "storage-config"
        s3_server.write_key(keys, "store", bucket, endpoint_url=proxy.endpoint_url)
        yield Place(mlserver, proxy, Path(sockets) / "a.sock", keys)
        proxy.release()


async def test_term_during_a_pull_leaves_nothing_and_ends_well(place: Place) -> None:
    place.proxy.hold(PATH)
    async with place.process() as (process, client):
        await _ready(client, "node-p")
        call = client.load("m", PATH, bucket=None)
        await asyncio.to_thread(place.proxy.wait_for_held)
        process.send_signal(signal.SIGTERM)
        assert (await failure(call))[0] is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(LIMIT_S):
            assert await process.wait() == 0
    assert place.left() == set()
    assert not await asyncio.to_thread(place.socket.exists)


async def test_killed_adapter_finds_its_models_again_and_clears_the_half_ones(
    place: Place,
) -> None:
    async with place.process() as (process, client):
        await _ready(client, "node-k")
        size_bytes = (await client.load("m", PATH, bucket=None)).sizeInBytes
        place.proxy.hold(PATH)
        half = client.load("half", PATH, bucket=None)
        await asyncio.to_thread(place.proxy.wait_for_held)
        process.kill()
        assert (await failure(half))[0] is grpc.StatusCode.UNAVAILABLE
    place.proxy.release()
    loads = place.mlserver.calls("RepositoryModelLoad")
    async with place.process() as (_, client):
        await _ready(client, "node-k")
        assert (await client.load("m", PATH, bucket=None)).sizeInBytes == size_bytes
        assert place.mlserver.calls("RepositoryModelLoad") == loads
        assert not any("half" in path for path in place.left())
        await _ready(client, "node-l")
        assert not place.mlserver.has("m")
        assert place.left() == set()


async def test_bad_settings_end_the_process_and_name_all_of_them(place: Place) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        env=place.environment(RUNTIME_PORT="x", MODELSIZE_MULTIPLIER="0"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode != 0
    assert b"RUNTIME_PORT" in said
    assert b"MODELSIZE_MULTIPLIER" in said


async def _ready(client: AdapterClient, node: str) -> None:
    """The process may still be starting."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                if (await client.status(node)).status == READY:
                    return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
