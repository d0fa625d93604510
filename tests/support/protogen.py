"""Generates mesh/wire/pb from proto/; with --check, says whether what is in git is what would be
generated.
"""

import argparse
import filecmp
import re
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "mesh.wire.pb"
# Messages of these are handled as bytes, or sent to methods that are not ours: no stub is needed.
WITHOUT_STUBS = {"wml_head.proto", "etcd.proto"}


def generate(out: Path) -> None:
    """Writes the messages, their types and the stubs of every .proto file to `out`."""
    for proto in sorted((ROOT / "proto").glob("*.proto")):
        arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
        arguments += [f"--python_out={out}", f"--pyi_out={out}"]
        if proto.name not in WITHOUT_STUBS:
            arguments.append(f"--grpc_python_out={out}")
        if protoc.main([*arguments, proto.name]) != 0:
            sys.exit(f"protoc failed on {proto.name}")
    for module in out.glob("*_pb2_grpc.py"):
        text = re.sub(
            r"^import (\w+_pb2)", rf"from {PACKAGE} import \1", module.read_text(), flags=re.M
        )
        module.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        names = sorted(path.name for path in Path(scratch).iterdir())
        _, different, missing = filecmp.cmpfiles(scratch, arguments.folder, names, shallow=False)
    committed = {path.name for path in arguments.folder.glob("*_pb2*")}
    stale = different + missing + sorted(committed - set(names))
    if stale:
        sys.exit(f"not what `make proto` generates: {', '.join(stale)}")


if __name__ == "__main__":
    main()
