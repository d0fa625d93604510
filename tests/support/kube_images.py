"""Packs the images of the manifests without Docker: archives that `ctr image import` takes.

The layers are those of deploy/images/Dockerfile and of the images of others; Python and the C
libraries are this machine's. What is packed is kept by the hash of what it is made of.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.kube_tools import binaries, cache

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".run/uv/bin/uv"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PAUSE = "registry.k8s.io/pause:3.10"
OURS = "wml-serving/wml-serving:0.1.0"
MLSERVER = "seldonio/mlserver:1.7.1"
ETCD = "quay.io/coreos/etcd:v3.6.4"
SEAWEEDFS = "chrislusf/seaweedfs:4.48"
LIBRARY = re.compile(r"=> (/\S+)|^\s+(/lib64/\S+)", re.M)
# What wheels link with beside what Python does; names are resolved by libnss.
EXTRA_LIBRARIES = (
    *("libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1", "libresolv.so.2"),
    *("libnss_dns.so.2", "libnss_files.so.2", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1"),
)


@dataclass(frozen=True)
class Layer:
    """Files by their place in the image, and texts to write."""

    trees: Sequence[tuple[Path, str]] = ()
    texts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    # In the first lines of scripts: the folder they were installed in, and the one they run in.
    moved: tuple[str, str] | None = None


@dataclass(frozen=True)
class Image:
    name: str
    layers: Sequence[Path]
    user: str
    entrypoint: Sequence[str] = ()
    env: Sequence[str] = ()


def pack() -> list[Path]:
    """The archives of all images, packed where that was not done yet."""
    system = _layer("system", _system())
    python = _layer("python", _python())
    venv_env = ("PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1")
    wml = _venv("wml-serving", ROOT / "requirements/main.lock", own=True)
    mlserver = _venv("mlserver", ROOT / "requirements/mlserver.lock")
    programs = {
        name: _layer(name, Layer(trees=[(path, f"usr/local/bin/{name}")]))
        for name, path in (
            ("etcd", binaries() / "etcd"),
            ("weed", ROOT / ".venv/bin/weed"),
            ("pause", binaries() / "pause"),
        )
    }
    path_env = ("PATH=/usr/local/bin:/usr/bin:/bin",)
    return [
        _archive(image)
        for image in (
            Image(PAUSE, [programs["pause"]], "65535", ["/usr/local/bin/pause"]),
            Image(OURS, [system, python, wml], "10001:10001", ["wml-serving"], venv_env),
            Image(MLSERVER, [system, python, mlserver], "1000", (), venv_env),
            Image(ETCD, [system, programs["etcd"]], "0", ["etcd"], path_env),
            Image(SEAWEEDFS, [system, programs["weed"]], "0", ["weed"], path_env),
        )
    ]


def _system() -> Layer:
    """The C library, a shell, users and the certificates of authorities."""
    trees = [(Path("/bin/dash"), "bin/sh"), (Path("/bin/sleep"), "bin/sleep")]
    trees += [(Path("/etc/ssl/certs/ca-certificates.crt"), "etc/ssl/certs/ca-certificates.crt")]
    users = "root:x:0:0::/:/bin/sh\nwml:x:10001:10001::/:/bin/sh\nmlserver:x:1000:1000::/:/bin/sh\n"
    return Layer(
        trees=[*trees, *_libraries()],
        texts={"etc/passwd": users, "etc/nsswitch.conf": "hosts: files dns\n", "tmp/.keep": ""},
    )


def _libraries() -> Iterator[tuple[Path, str]]:
    """What Python and its modules are linked with, in the loader's default folder."""
    prefix = Path(sys.base_prefix)
    users = [prefix / "bin" / PYTHON, *(prefix / "lib" / PYTHON / "lib-dynload").glob("*.so")]
    said = subprocess.run(["ldd", "/bin/sleep", *users], capture_output=True, text=True).stdout
    found = {Path(one or other) for one, other in LIBRARY.findall(said)}
    found |= {path for name in EXTRA_LIBRARIES for path in Path("/usr/lib").glob(f"*/{name}")}
    for path in sorted(found):
        place = (
            "lib64"
            if path.name.startswith("ld-linux")
            else f"lib/{sysconfig.get_config_var('MULTIARCH')}"
        )
        yield path.resolve(), f"{place}/{path.name}"


def _python() -> Layer:
    prefix = Path(sys.base_prefix)
    return Layer(
        trees=[
            (prefix / "bin" / PYTHON, f"usr/local/bin/{PYTHON}"),
            (prefix / "lib" / PYTHON, f"usr/local/lib/{PYTHON}"),
        ],
        links={f"usr/local/bin/{name}": PYTHON for name in ("python", "python3")},
    )


def _venv(name: str, lock: Path, *, own: bool = False) -> Path:
    """A virtual environment as a layer at /venv; `own` with this project, not editable."""
    sources = [lock, *(_own_sources() if own else ())]
    key = _hash(*(path.read_bytes() + str(path).encode() for path in sources), sys.version.encode())
    made = cache() / "layers" / f"{name}-{key}.tar"
    if made.exists():
        return _used(made)
    folder = cache() / "venvs" / f"{name}-{os.getpid()}"
    try:
        python = folder / "bin/python"
        _uv("venv", "--quiet", "--python", str(Path(sys.base_prefix) / "bin" / PYTHON), str(folder))
        _uv("pip", "sync", "--quiet", "--compile-bytecode", "--python", str(python), str(lock))
        if own:
            _uv(
                "pip",
                "install",
                "--quiet",
                "--compile-bytecode",
                "--no-deps",
                "--python",
                str(python),
                str(ROOT),
            )
        for link in ("python", "python3", PYTHON):
            (folder / "bin" / link).unlink(missing_ok=True)
        (folder / "pyvenv.cfg").write_text(
            "home = /usr/local/bin\ninclude-system-site-packages = false\n"
        )
        layer = Layer(
            trees=[(folder, "venv")],
            links={
                f"venv/bin/{link}": f"/usr/local/bin/{PYTHON}" for link in ("python", "python3")
            },
            moved=(str(folder), "/venv"),
        )
        return _write(made, layer)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_sources() -> list[Path]:
    found = [ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    for package in ("mesh", "router"):
        found += [
            p
            for p in sorted((ROOT / package).rglob("*"))
            if p.is_file() and "__pycache__" not in p.parts
        ]
    return found


def _uv(*arguments: str) -> None:
    subprocess.run([UV, *arguments], check=True, cwd=ROOT)


def _layer(name: str, layer: Layer) -> Path:
    stamps = [
        f"{source}:{place}:{source.stat().st_size}:{source.stat().st_mtime_ns}"
        for source, place in layer.trees
    ]
    key = _hash(*(text.encode() for text in (*stamps, repr(layer.texts), repr(layer.links))))
    made = cache() / "layers" / f"{name}-{key}.tar"
    return _used(made) if made.exists() else _write(made, layer)


def _write(made: Path, layer: Layer) -> Path:
    made.parent.mkdir(parents=True, exist_ok=True)
    scratch = made.with_suffix(f".{os.getpid()}")
    with tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as tar:
        for source, place in layer.trees:
            _add_tree(tar, source, place, layer.moved)
        for place, text in layer.texts.items():
            _add_bytes(tar, place, text.encode())
        for place, target in layer.links.items():
            info = tarfile.TarInfo(place)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    scratch.rename(made)
    _forget_older(made)
    return made


def _add_tree(
    tar: tarfile.TarFile, source: Path, place: str, moved: tuple[str, str] | None
) -> None:
    """Adds a file or a folder, owned by root and readable by all."""
    if source.is_file():
        _add_file(tar, source, place, moved)
        return
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if not _is_left_out(Path(folder), name))
        for name in sorted(files):
            path = Path(folder) / name
            if ".opt-" not in name:
                _add_file(tar, path, f"{place}/{path.relative_to(source)}", moved)


def _is_left_out(folder: Path, name: str) -> bool:
    """Of the standard library: what belongs to an environment, and its own tests."""
    in_library = (folder / "os.py").exists() and (folder / "lib-dynload").exists()
    return in_library and (
        name in ("site-packages", "test", "idlelib") or name.startswith("config-")
    )


def _add_file(tar: tarfile.TarFile, path: Path, place: str, moved: tuple[str, str] | None) -> None:
    info = tar.gettarinfo(path, place)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if not info.isreg():
        tar.addfile(info)
        return
    info.type, info.linkname = tarfile.REGTYPE, ""  # never a hard link into uv's cache
    content = path.read_bytes()
    if moved is not None and path.parent.name == "bin" and content.startswith(b"#!"):
        content = content.replace(moved[0].encode(), moved[1].encode())
    info.size = len(content)
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    tar.addfile(info, io.BytesIO(content))


def _add_bytes(tar: tarfile.TarFile, place: str, content: bytes) -> None:
    info = tarfile.TarInfo(place)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def _archive(image: Image) -> Path:
    """A docker archive; its layers are files of the cache, so packing is copying."""
    key = _hash(repr(image).encode())
    name = re.sub(r"\W+", "-", image.name)
    made = cache() / "images" / f"{name}-{key}.tar"
    if made.exists():
        return _used(made)
    made.parent.mkdir(parents=True, exist_ok=True)
    digests = [_file_hash(layer) for layer in image.layers]
    config = {"User": image.user, "Entrypoint": list(image.entrypoint), "Env": list(image.env)}
    text = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in digests]},
            "history": [{"created_by": "tests.support.kube_images"}] * len(digests),
        }
    ).encode()
    parts = [f"{each}/layer.tar" for each in digests]
    manifest = [{"Config": f"{_hash(text)}.json", "RepoTags": [image.name], "Layers": parts}]
    scratch = made.with_suffix(f".{os.getpid()}")
    with tarfile.open(scratch, "w") as tar:
        _add_bytes(tar, f"{_hash(text)}.json", text)
        for layer, part in zip(image.layers, parts, strict=True):
            tar.add(layer, part)
        _add_bytes(tar, "manifest.json", json.dumps(manifest).encode())
    scratch.rename(made)
    _forget_older(made)
    return made


def _used(path: Path) -> Path:
    path.touch()
    return path


def _forget_older(made: Path, keep: int = 3) -> None:
    """Removes all but the newest few of a name."""
    name = made.stem.rpartition("-")[0]
    same = [p for p in made.parent.glob("*.tar") if p.stem.rpartition("-")[0] == name]
    for old in sorted(same, key=lambda path: path.stat().st_mtime_ns)[:-keep]:
        old.unlink(missing_ok=True)


def _hash(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    for archive in pack():
        print(archive)
