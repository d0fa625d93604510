"""What models take of MLServer's memory, against what the adapter says: `make bench-sizes`.

One MLServer a case. Two copies of the model are loaded and asked first, so that what its library
takes once does not count; then many more of the same file, each asked once. The growth of resident
memory over their number is what a model takes. The adapter says: bytes on disk times
MODELSIZE_MULTIPLIER. Prints a table and writes build/sizes.json.
"""

import argparse
import json
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from mesh.adapters.mlserver_layout import IMPLEMENTATIONS, SETTINGS
from mesh.ops.settings import AdapterSettings
from tests.bench.make_sized_model import FEATURES, size_bytes
from tests.support.mlserver import MLServerProcess

ROOT = Path(__file__).resolve().parents[2]
MAKER = Path(__file__).with_name("make_sized_model.py")
WARM = 2
MULTIPLIER = AdapterSettings.model_fields["modelsize_multiplier"].default
MB = 1e6


@dataclass(frozen=True, slots=True)
class Case:
    """`kind` as the maker has it, `type` as a Predictor names it."""

    kind: str
    type: str
    wanted_bytes: int


CASES = tuple(
    Case(kind, kind.partition("-")[0], wanted_bytes)
    for kind in (
        "sklearn-svm",
        "sklearn-forest",
        "xgboost-json",
        "xgboost-ubj",
        "lightgbm",
        "catboost",
        "mlflow",
    )
    for wanted_bytes in (300_000, 3_000_000)
)


@dataclass(frozen=True, slots=True)
class Row:
    kind: str
    file_bytes: int
    resident_bytes: int
    estimate_bytes: int
    copies: int

    @property
    def by_file(self) -> float:
        return self.resident_bytes / self.file_bytes

    @property
    def by_estimate(self) -> float:
        return self.resident_bytes / self.estimate_bytes


def measured(case: Case, venv: Path, folder: Path) -> Row:
    maker = [venv / "bin/python", MAKER, case.kind, str(case.wanted_bytes), folder / "files"]
    made = subprocess.run(maker, check=True, capture_output=True, text=True)
    path = Path(made.stdout.splitlines()[-1])
    file_bytes = size_bytes(path)
    # Enough for the growth to be large against what else moves.
    copies = max(10, min(200, int(60 * MB / file_bytes)))
    with MLServerProcess(folder / "root", venv) as server:
        _load(server, case, path, range(WARM))
        before_bytes = _resident_bytes(server)
        _load(server, case, path, range(WARM, WARM + copies))
        grown_bytes = _resident_bytes(server) - before_bytes
    return Row(case.kind, file_bytes, grown_bytes // copies, int(file_bytes * MULTIPLIER), copies)


def _load(server: MLServerProcess, case: Case, path: Path, numbers: range) -> None:
    for number in numbers:
        name = f"m{number}"
        settings = {
            "name": name,
            "implementation": IMPLEMENTATIONS[case.type],
            "parameters": {"uri": str(path)},
        }
        (server.served / name).mkdir()
        (server.served / name / SETTINGS).write_text(json.dumps(settings))
        server.load(name)
        server.ask(name, [0.5] * FEATURES)


def _resident_bytes(server: MLServerProcess) -> int:
    process = psutil.Process(server.pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


def table(rows: list[Row]) -> str:
    head = (
        "| model | on disk, MB | in memory, MB | in memory ÷ on disk | in memory ÷ estimate |\n"
        "| --- | --: | --: | --: | --: |\n"
    )
    return head + "\n".join(
        f"| {row.kind} | {row.file_bytes / MB:.2f} | {row.resident_bytes / MB:.2f} "
        f"| {row.by_file:.2f} | {row.by_estimate:.2f} |"
        for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".run/venvs/mlserver")
    parser.add_argument("--kind", action="append", help="only this one; may be repeated")
    told = parser.parse_args()
    rows = []
    for case in CASES:
        if not told.kind or case.kind in told.kind:
            with tempfile.TemporaryDirectory(prefix="sizes-") as folder:
                rows.append(measured(case, told.venv.absolute(), Path(folder)))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "sizes.json").write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
