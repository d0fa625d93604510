"""Which object names may become files below a target, and which must not.

A name is data of whoever may write to the bucket. It becomes a path only where it can be nothing
but a file below the target: no `..`, nothing absolute, no control character, no backslash, and no
two names for the same file.
"""

from collections.abc import Iterable
from pathlib import PurePosixPath

from mesh.storage.port import UnsafeName


def safe_place(name: str, relative: str) -> PurePosixPath:
    """Where the object `name` goes, being called `relative` below the path that was asked for."""
    if not all(character.isprintable() for character in relative):
        raise UnsafeName(name, "it has a control character")
    if "\\" in relative:
        raise UnsafeName(name, "it has a backslash")
    if relative.startswith("/"):
        raise UnsafeName(name, "it is absolute")
    for segment in relative.split("/"):
        if segment in ("", ".", ".."):
            raise UnsafeName(name, f"it has {segment!r} between its slashes")
    return PurePosixPath(relative)


def check_path(path: str) -> str:
    """The path that a user asks for as the name of an object or prefix: no slash before it."""
    name = path.lstrip("/")
    safe_place(path, name.rstrip("/"))
    return name


def check_apart(places: Iterable[tuple[str, PurePosixPath]]) -> None:
    """Raises UnsafeName if two objects want the same file, or one is a file and a folder."""
    names = dict[PurePosixPath, str]()
    for name, place in places:
        if place in names:
            raise UnsafeName(name, f"it is the same file as {names[place]!r}")
        names[place] = name
    for place, name in names.items():
        for folder in place.parents:
            if folder in names:
                raise UnsafeName(name, f"{names[folder]!r} is a file where it needs a folder")
