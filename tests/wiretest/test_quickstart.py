"""What `make run` has beside `serve`: the models are made once, and are in the store before it."""

import json
import os
import sys
from pathlib import Path

import pytest

from mesh.storage.keys import StorageKeys
from router.quickstart import BUCKET, MAKE_MODELS, STORAGE_KEY, example_storage
from router.serve import StartFailed

# In the place of the one that needs the libraries of MLServer.
SCRIPT = """
import pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder / "sklearn").mkdir(parents=True, exist_ok=True)
(folder / "sklearn/a.joblib").write_bytes(b"a model")
with (folder.parent / "runs").open("a") as runs:
    runs.write("x")
"""


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    folder = tmp_path / "deploy"
    script = folder / MAKE_MODELS
    script.parent.mkdir(parents=True)
    script.write_text(SCRIPT)
    return folder


def storage(tmp_path: Path, deploy: Path):
    keys = tmp_path / "state/storage-config"
    return example_storage(tmp_path / "state", keys, deploy, Path(sys.executable))


async def test_store_has_the_models_and_the_key_opens_it(tmp_path: Path, deploy: Path):
    (tmp_path / "state").mkdir()
    async with storage(tmp_path, deploy) as store:
        key = tmp_path / "state/storage-config" / STORAGE_KEY
        assert key.stat().st_mode & 0o077 == 0
        assert json.loads(key.read_text()) == store.storage_entry(BUCKET)
        StorageKeys(key.parent).get(STORAGE_KEY)
        listed = store.client().list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [item["Key"] for item in listed] == ["sklearn/a.joblib"]
        assert [path.name for path in key.parent.iterdir()] == [STORAGE_KEY]
    assert store.pid is None


async def test_script_runs_once_and_again_where_it_is_newer(tmp_path: Path, deploy: Path):
    (tmp_path / "state").mkdir()
    runs = tmp_path / "state/runs"
    script, done = deploy / MAKE_MODELS, tmp_path / "state/example-models.done"
    for _ in range(2):
        async with storage(tmp_path, deploy):
            assert runs.read_text() == "x"
    script.write_text("raise SystemExit('no sklearn here')")
    later_s = done.stat().st_mtime + 1
    os.utime(script, (later_s, later_s))
    with pytest.raises(StartFailed, match="no sklearn here") as caught:
        async with storage(tmp_path, deploy):
            pass
    assert str(script) in str(caught.value)
