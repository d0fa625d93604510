"""The walk-through on one machine: an object store with the example models, and `serve` over it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.local.object_store import ObjectStore, StoreDidNotStart
from router.serve import StartFailed

log = logging.getLogger(__name__)

STORAGE_KEY = "wml-serving-example-models"
BUCKET = "wml-serving-example-models-public"
MAKE_MODELS = Path("quickstart/make_example_models.py")


@asynccontextmanager
async def example_storage(
    state: Path, storage_config: Path, deploy: Path, python: Path
) -> AsyncIterator[ObjectStore]:
    """An S3 server with the example models, known in `storage_config` by the documentation's key.

    `deploy` is the checkout's folder of that name; `python` has the libraries that make the models.
    Raises StartFailed.
    """
    models = state / "example-models"
    await _make_models(deploy / MAKE_MODELS, python, models)
    store = ObjectStore(state / "s3")
    try:
        await store.start()
    except StoreDidNotStart as error:
        raise StartFailed(f"the object store did not start: {error}") from error
    try:
        for path in sorted(file for file in models.rglob("*") if file.is_file()):
            await store.put(BUCKET, path.relative_to(models).as_posix(), path)
        _write(storage_config / STORAGE_KEY, json.dumps(store.storage_entry(BUCKET), indent=2))
        yield store
    finally:
        await store.stop()


async def _make_models(script: Path, python: Path, folder: Path) -> None:
    done = folder.with_suffix(".done")
    if _is_newer(done, script):
        return
    process = await asyncio.create_subprocess_exec(
        python,
        script,
        folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise StartFailed(f"{script} failed: {output.decode(errors='replace').strip()}")
    done.touch()


def _is_newer(done: Path, script: Path) -> bool:
    return done.exists() and done.stat().st_mtime >= script.stat().st_mtime


def _write(path: Path, text: str) -> None:
    """Replaces a file that others may be reading; only we may read what is in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(text)
    part.replace(path)
