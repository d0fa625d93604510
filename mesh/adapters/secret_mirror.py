"""storage-config through the API of Kubernetes: the Secret as files, for `storage.keys` to read.

A mounted Secret reaches its pod after a minute or two; a watch takes milliseconds. While the API
server is away, the keys that were last seen stay in force.
"""

import asyncio
import base64
import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from mesh.kube.kinds import SECRET
from mesh.kube.port import Json, Kube
from mesh.kube.reflector import Reflector
from mesh.storage.keys import is_key_name

log = logging.getLogger(__name__)

RETRY_S = 5.0
FIRST_SIGHT_S = 10.0

Entries = Mapping[str, bytes]


class SecretMirror:
    """Keeps `folder` as the Secret is: one file an entry, for our user alone.

    Other files of the folder are deleted; without the Secret it is empty.
    """

    def __init__(
        self, kube: Kube, namespace: str, name: str, folder: Path, *, retry_s: float = RETRY_S
    ) -> None:
        self._secret = Reflector(kube, SECRET, namespace, self._changed, name=name)
        self._name = name
        self._folder = folder
        self._retry_s = retry_s
        self._news = asyncio.Event()
        self._written = asyncio.Event()

    async def first_sight(self) -> None:
        """Returns once the folder is as the Secret is, or after some seconds without an answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SIGHT_S):
                await self._written.wait()

    async def run(self) -> None:
        """Follows the Secret, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secret.run())
            await self._secret.synced.wait()
            while True:
                self._news.clear()
                await self._write()
                await self._news.wait()

    async def _write(self) -> None:
        entries = _entries(self._secret.objects.get(self._name))
        try:
            await asyncio.to_thread(write, self._folder, entries)
        except OSError as error:
            problem = f"{error.filename}: {error.strerror}"
            log.warning("storage keys not written", extra={"problem": problem})
            asyncio.get_running_loop().call_later(self._retry_s, self._news.set)
        else:
            self._written.set()

    def _changed(self, name: str, obj: Json | None) -> None:
        self._news.set()


def write(folder: Path, entries: Entries) -> None:
    """Makes the folder hold these files and no others; each is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    # The API admits no worse names than those of files, but we do not trust it.
    entries = {name: content for name, content in entries.items() if is_key_name(name)}
    for path in folder.iterdir():
        if path.name not in entries and not path.is_dir():
            path.unlink()
    for name, content in entries.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        partial = folder / f".{name}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        partial.replace(path)


def _entries(secret: Json | None) -> Entries:
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(text) for name, text in data.items()}
