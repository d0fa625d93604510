"""storage-config through the API of Kubernetes: the Secret as files, for `keys` to read.

A mounted Secret reaches its pod after a minute or two; a watch takes milliseconds. While the API
server is away, the keys that were last seen stay in force.
"""

import asyncio
import base64
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from mesh.storage.keys import is_key_name

log = logging.getLogger(__name__)

# A watch is begun anew after this: one that went silent is not trusted for longer.
WATCH_S = 240
SLACK_S = 10
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0
FIRST_SIGHT_S = 10.0

Entries = Mapping[str, bytes]


class NotInCluster(Exception):
    """The credentials that Kubernetes gives to a pod are not there."""


class SecretMirror:
    """Keeps `folder` as the Secret is: one file an entry, for our user alone.

    `api` is a `kubernetes.aio.client.ApiClient`. Other files of the folder are deleted.
    """

    def __init__(self, api: Any, namespace: str, name: str, folder: Path) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._folder = folder
        self._seen = asyncio.Event()
        self._problem = ""

    async def first_sight(self) -> None:
        """Returns once the folder is as the Secret is, or after some seconds without an answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SIGHT_S):
                await self._seen.wait()

    async def run(self) -> None:
        """Follows the Secret, for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with contextlib.aclosing(self._follow()) as following:
                    async for entries in following:
                        await asyncio.to_thread(write, self._folder, entries)
                        self._well()
                        pause_s = FIRST_PAUSE_S
            except Exception as error:  # noqa: BLE001 - whatever it is, the last keys stay
                self._ill(error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _follow(self) -> AsyncGenerator[Entries, None]:
        """The Secret as it is, then after each change; nothing in it where it does not exist."""
        from kubernetes.aio import client, watch  # an extra

        core: Any = client.CoreV1Api(self._api)
        watching: Any = watch.Watch("V1Secret")  # type: ignore[no-untyped-call]
        # RBAC for one named Secret admits a list and a watch of that name alone.
        only = {"namespace": self._namespace, "field_selector": f"metadata.name={self._name}"}
        async with asyncio.timeout(SLACK_S):
            listed = await core.list_namespaced_secret(**only)
        yield _entries(listed.items[0].data if listed.items else None)
        after = {"resource_version": listed.metadata.resource_version, "timeout_seconds": WATCH_S}
        async with asyncio.timeout(WATCH_S + SLACK_S), watching:
            async for event in watching.stream(core.list_namespaced_secret, **only, **after):
                is_gone = event["type"] == "DELETED"
                yield _entries(None if is_gone else event["object"].data)

    def _well(self) -> None:
        if self._problem:
            log.info("secret is followed again", extra={"secret": self._name})
        self._problem = ""
        self._seen.set()

    def _ill(self, error: Exception) -> None:
        """Said once, until it is well or something else."""
        problem = _in_words(error)
        if problem != self._problem:
            fields = {"secret": self._name, "namespace": self._namespace, "problem": problem}
            log.warning("secret cannot be followed, the last keys stay", extra=fields)
        self._problem = problem


async def in_cluster() -> Any:
    """A client with the credentials of this pod; close it. Raises NotInCluster."""
    try:
        from kubernetes.aio import client, config  # an extra
    except ImportError as error:
        raise NotInCluster("the extra `kubernetes` of wml-serving is not installed") from error
    configuration = client.Configuration()
    try:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise NotInCluster(str(error)) from error
    return client.ApiClient(configuration)


def write(folder: Path, entries: Entries) -> None:
    """Makes the folder hold these files and no others; each is replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
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


def _entries(data: Mapping[str, str] | None) -> Entries:
    return {name: base64.b64decode(text) for name, text in (data or {}).items()}


def _in_words(error: Exception) -> str:
    """What is wrong, never with a value of the Secret in it."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the API server answers {status} {getattr(error, 'reason', '')}".strip()
    return (
        f"{type(error).__name__}: {error}" if isinstance(error, OSError) else type(error).__name__
    )
