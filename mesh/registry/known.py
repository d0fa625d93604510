"""Which keys a follower has seen, and at which revision each was put last.

A key is kept as its folder and the rest: the rest is mostly the name of a record, which is in
memory already, and may be the same object.
"""

from collections.abc import Callable, Iterator
from typing import Any

from mesh.core.ids import Revision

SEPARATOR = "/"


def split(key: str) -> tuple[str, str]:
    """The folder of a key and the rest, which together are the key."""
    folder, separator, rest = key.partition(SEPARATOR)
    return folder + separator, rest


class Known:
    """Keys and revisions."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, Revision]] = {}

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        for folder, rests in self._folders.items():
            for rest in rests:
                yield folder + rest

    def has_any(self, folder: str) -> bool:
        """Whether there is a key in this folder, which ends in the separator."""
        return bool(self._folders.get(folder))

    def get(self, key: str) -> Revision | None:
        folder, rest = split(key)
        return self._folders.get(folder, {}).get(rest)

    def put(self, key: str, revision: Revision, shared: Callable[[Any], Any]) -> None:
        """`shared` gives the object to keep for an equal one."""
        folder, rest = split(key)
        self._folders.setdefault(folder, {})[shared(rest)] = shared(revision)

    def drop(self, key: str) -> None:
        folder, rest = split(key)
        self._folders.get(folder, {}).pop(rest, None)

    def clear(self) -> None:
        self._folders.clear()
