"""What an adapter keeps on disk for itself: pulls under way, and what it knows of loaded models.

Below ROOT_MODEL_DIR: `_pulling/` has models that are not whole yet, `_loaded/<id>.json` a model's
size once the server has it, `_node` the life of the node that all of it was loaded for. With these
an adapter that was killed finds its models again. All of it is blocking.
"""

import asyncio
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

from mesh.adapters.model_key import is_safe_id
from mesh.core.ids import ModelId

P = ParamSpec("P")
T = TypeVar("T")


class Folders:
    """The adapter's own files below `root`, which is made if it is not there."""

    def __init__(self, root: Path) -> None:
        self._pulling = root / "_pulling"
        self._loaded = root / "_loaded"
        self._node = root / "_node"
        self._pulling.mkdir(parents=True, exist_ok=True)
        self._loaded.mkdir(exist_ok=True)

    def pull_target(self, model: ModelId) -> Path:
        return self._pulling / model

    def clear_pull(self, model: ModelId) -> None:
        remove(self.pull_target(model))

    def clear_pulls(self) -> None:
        """Of every model, and what a killed pull left beside its target."""
        for path in self._pulling.iterdir():
            remove(path)

    def remember(self, model: ModelId, size_bytes: int) -> None:
        _replace(self._record(model), json.dumps({"size_bytes": size_bytes}))

    def forget(self, model: ModelId) -> None:
        self._record(model).unlink(missing_ok=True)

    def remembered(self) -> Mapping[ModelId, int]:
        """Size in bytes of each model that was loaded; a damaged record counts as none."""
        sizes = {}
        for path in self._loaded.glob("*.json"):
            size_bytes = _size_bytes(path)
            if size_bytes is not None and is_safe_id(path.stem):
                sizes[ModelId(path.stem)] = size_bytes
        return sizes

    def node(self) -> str:
        """The life of a node that was served last, empty if none."""
        try:
            return self._node.read_text()
        except OSError:
            return ""

    def set_node(self, node: str) -> None:
        _replace(self._node, node)

    def _record(self, model: ModelId) -> Path:
        return self._loaded / f"{model}.json"


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`call` in a thread; if cancelled, waits for its end first, so that it cannot go on behind the
    back of whoever cleans up."""
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, functools.partial(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at: nobody else will
        raise


def remove(path: Path) -> None:
    """Deletes a file, link or folder; that it is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _size_bytes(path: Path) -> int | None:
    try:
        size_bytes = json.loads(path.read_text())["size_bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size_bytes if isinstance(size_bytes, int) else None


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, if the process is killed."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.replace(path)
