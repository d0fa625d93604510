"""`wml-serving export` and `import`: all Predictors as a file, one JSON object a line.

Neither holds more of a message than one Predictor, so that a mesh of any size can be backed up.
"""

import json
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click

from mesh.core.ids import PredictorName, canonical_spec
from mesh.wire.documents import InvalidManifest
from mesh.wire.manifests import parse_predictor
from router.cli.apply import sent
from router.cli.connection import Management, connected, server_option
from router.cli.failures import Failure
from router.cli.files import STDIN, read_whole, refuse_all

AT_ONCE = 32


@click.command("export")
@click.option("-o", "--output", default=STDIN, metavar="FILE|-", help="Where to; - is stdout.")
@server_option
def export_command(output: str, server: str) -> None:
    """Writes all Predictors, one JSON object a line, in the order of their names.

    A FILE takes its place once it is complete: an export that fails leaves the one before. What a
    server adds, the status and the like, is left out. A Predictor that import would refuse is
    named on standard error. Exit codes: 0 all of them are written, 1 not.

    \b
      wml-serving export -o predictors.jsonl
      wml-serving export | gzip > predictors.jsonl.gz
    """
    with connected(server) as management, _written(output) as file:
        count = 0
        for resource in management.read("predictor"):
            content = sent(resource)
            for problem in _problems(content):
                name = content["metadata"]["name"]
                click.echo(f"predictor/{name} cannot be imported: {problem}", err=True)
            file.write(json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n")
            count += 1
    click.echo(f"{count} exported", err=True)


@click.command("import")
@click.option(
    "-f", "--filename", "file", required=True, metavar="FILE|-", help="What was exported."
)
@click.option("--overwrite", is_flag=True, help="Also change Predictors that differ.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Only say what would happen.")
@server_option
def import_command(file: str, overwrite: bool, is_dry_run: bool, server: str) -> None:
    """Creates the Predictors of an export that are missing.

    All lines are checked before the first one is used. One that exists with another spec is named
    and left as it is, but with --overwrite. What is changed is printed, and a summary on standard
    error. Exit codes: 0 done, 1 a line is invalid or was refused.

    \b
      wml-serving import -f predictors.jsonl --dry-run
      gunzip < predictors.jsonl.gz | wml-serving import -f -
    """
    lines = list(_lines(file))
    refuse_all([f"{line.place}: {problem}" for line in lines for problem in line.problems])
    with connected(server) as management:
        existing = {
            resource["metadata"]["name"]: canonical_spec(resource["spec"])
            for resource in management.read("predictor")
        }
        work = Import(management, overwrite=overwrite, is_dry_run=is_dry_run)
        for line in lines:
            work.take(line, existing.get(line.name))
        work.finish()
    done = ", ".join(f"{count} {what}" for what, count in sorted(work.counts.items()))
    click.echo((done or "nothing to import") + (" (dry run)" if is_dry_run else ""), err=True)
    if work.counts["refused"]:
        raise SystemExit(1)


@dataclass(frozen=True, slots=True)
class Line:
    """One Predictor of a file; `name` and `spec` are empty where there are problems."""

    place: str
    content: Any
    name: PredictorName | str = ""
    spec: str = ""
    problems: tuple[str, ...] = ()


class Import:
    """Applies what is missing, some at once; `counts` says what became of the lines."""

    def __init__(self, management: Management, *, overwrite: bool, is_dry_run: bool) -> None:
        self.counts: Counter[str] = Counter()
        self._management = management
        self._overwrite = overwrite
        self._is_dry_run = is_dry_run
        self._begun: deque[tuple[Line, Callable[[], str]]] = deque()

    def take(self, line: Line, existing: str | None) -> None:
        """One line, and the spec that the server has of that name."""
        if existing == line.spec:
            self.counts["unchanged"] += 1
        elif existing is not None and not self._overwrite:
            self.counts["different"] += 1
            click.echo(f"predictor/{line.name} differs, left as it is", err=True)
        elif self._is_dry_run:
            self._say(line, "created" if existing is None else "configured")
        else:
            self._begun.append((line, self._management.apply_begun(sent(line.content))))
            if len(self._begun) >= AT_ONCE:
                self._end_one()

    def finish(self) -> None:
        """Waits for what is under way."""
        while self._begun:
            self._end_one()

    def _end_one(self) -> None:
        line, result = self._begun.popleft()
        try:
            self._say(line, result())
        except Failure as failure:
            self.counts["refused"] += 1
            click.echo(f"{line.place}: {failure.message}", err=True)

    def _say(self, line: Line, what: str) -> None:
        self.counts[what] += 1
        note = " (dry run)" if self._is_dry_run else ""
        click.echo(f"predictor/{line.name} {what}{note}")


def _lines(file: str) -> Iterator[Line]:
    """The lines of a file that are not empty, checked; a name that comes twice is a problem."""
    place = "standard input" if file == STDIN else file
    seen: dict[str, int] = {}
    for number, text in enumerate(read_whole(file).split("\n"), 1):
        if not text.strip():
            continue
        line = _line(f"{place}, line {number}", text)
        if (before := seen.get(line.name)) is not None:
            line = Line(line.place, None, problems=(f"{line.name!r} is on line {before} too",))
        elif line.name:
            seen[line.name] = number
        yield line


def _line(place: str, text: str) -> Line:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return Line(place, None, problems=("not a JSON object, as export writes them",))
    try:
        spec = parse_predictor(content)
    except InvalidManifest as error:
        return Line(place, content, problems=error.problems)
    return Line(place, content, spec.name, spec.canonical)


def _problems(content: object) -> Iterable[str]:
    try:
        parse_predictor(content)
    except InvalidManifest as error:
        return error.problems
    return ()


@contextmanager
def _written(output: str) -> Iterator[IO[str]]:
    """A file that takes the place of `output` if nothing goes wrong; or standard output."""
    if output == STDIN:
        yield sys.stdout
        return
    path = Path(output)
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", encoding="utf-8", delete=False
        ) as file:
            partial = Path(file.name)
            try:
                yield file
                file.flush()
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise Failure(f"error: {path}: {(error.strerror or str(error)).lower()}") from error
