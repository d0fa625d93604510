"""The documentation's pages as tests see them: their code blocks, and the commands in them, run.

A block of commands is ```sh. A ```text or ```json block right after it is what the commands must
print: text line by line in order, `…` for anything and blanks as one; JSON as a part of the whole,
so that a page may leave out what does not matter. After ```sh may stand `fails`: the commands exit
non-zero; or `serves`: a `serve`, run on free ports until it prints what is shown, and stopped.
"""

import json
import math
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.stand import BIN, ROOT, Stand
from tests.support.waiting import until

DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^ *``` *$", re.S | re.M)
COMMANDS = frozenset({"sh", "console", "bash", "shell"})
# The addresses that pages show, and which port of a stand stands for each.
PORTS = {
    "8033": "port",
    "8008": "rest_port",
    "8034": "management_port",
    "2112": "operations_port",
}
# In place of the fixed ports of a second `serve`.
ANY_PORTS = [
    f"--{door} 127.0.0.1:0" for door in ("listen", "rest-listen", "management", "operations")
]
SHELL = ("bash", "-euo", "pipefail", "-c")
TIMEOUT_S = 90


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: `line` is that of its fence, `words` what stands behind the language."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def is_commands(self) -> bool:
        return self.language in COMMANDS

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and every page of docs."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def name_of(page: Path) -> str:
    """How tests name a page: relative to docs, the README as such."""
    return str(page.relative_to(DOCS)) if page.is_relative_to(DOCS) else "/" + page.name


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in FENCE.finditer(text):
        indent, (language, *words) = match[1], match[2].split() or [""]
        content = re.sub(f"^{indent}", "", match[3], flags=re.M)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(name_of(page), line, language, tuple(words), content))
    return found


def outputs(page: Path) -> dict[Block, Block | None]:
    """Each block of commands, with the block that shows what it prints, if there is one."""
    found = blocks(page)
    followed = pairwise([*found, None])
    return {
        block: after if after and after.language in ("text", "json") else None
        for block, after in followed
        if block is not None and block.is_commands
    }


class Terminal:
    """Runs blocks one after the other where a reader would: in a checkout, with PATH set."""

    def __init__(self, folder: Path, stand: Stand) -> None:
        self._folder = folder
        self._stand = stand
        for name in ("deploy", "docs", "proto", "requirements", ".run", ".venv"):
            (folder / name).symlink_to(ROOT / name)

    def run(self, block: Block, output: Block | None) -> None:
        """Runs the commands and compares what they print."""
        if "serves" in block.words:
            self._serve(block, output)
            return
        done = subprocess.run(
            [*SHELL, self._local(block.text)],
            cwd=self._folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        fails = "fails" in block.words
        assert (done.returncode != 0) == fails, f"{block.place}: {done.returncode}\n{done.stdout}"
        if output is not None:
            difference = compare(self._local(output.text), done.stdout, output.language)
            assert not difference, f"{output.place}: {difference}\n{done.stdout}"

    def _serve(self, block: Block, output: Block | None) -> None:
        assert output is not None, f"{block.place} shows no line by which it is up"
        command = f"exec {block.text.strip()} {' '.join(ANY_PORTS)}"
        printed = self._folder / "printed"
        with printed.open("wb") as file:
            process = subprocess.Popen(
                [*SHELL, command],
                cwd=self._folder,
                env=self._environment(),
                stdout=file,
                stderr=file,
            )
        try:
            until(
                lambda: (
                    process.poll() is not None
                    or not compare(output.text, printed.read_text(), "text")
                ),
                printed.read_text,
            )
            assert process.poll() is None, printed.read_text()
        finally:
            process.terminate()
            assert process.wait(TIMEOUT_S) == 0

    def _environment(self) -> dict[str, str]:
        """What a shell has, with the environment's programs first on its path."""
        return os.environ | {  # noqa: TID251
            "PATH": f"{BIN}:{os.environ['PATH']}",  # noqa: TID251
            "WML_SERVING_SERVER": f"127.0.0.1:{self._stand.management_port}",
            "WML_SERVING_INFERENCE": f"127.0.0.1:{self._stand.port}",
        }

    def write(self, name: str, block: Block) -> None:
        """Saves a block as the file that the page says it is."""
        (self._folder / name).write_text(self._local(block.text))

    def _local(self, text: str) -> str:
        for port, attribute in PORTS.items():
            local = str(getattr(self._stand, attribute))
            text = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", rf"\1:{local}", text)
        return text


def compare(shown: str, printed: str, language: str) -> str:
    """How what a page shows differs from what was printed; empty where it does not."""
    if language == "json":
        return _missing(json.loads(shown), json.loads(printed), "")
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in filter(None, (" ".join(line.split()) for line in shown.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("…"))))
        if not any(pattern.fullmatch(each) for each in lines):
            return f"not printed, or not in this order: {line!r}"
    return ""


def _missing(shown: Any, printed: Any, path: str) -> str:
    """Where `printed` lacks something of `shown`, as a path."""
    match shown, printed:
        case Mapping(), Mapping():
            absent = [f"{path}.{key} is not there" for key in shown if key not in printed]
            deeper = (_missing(shown[k], printed[k], f"{path}.{k}") for k in shown if k in printed)
            return "; ".join([*absent, *filter(None, deeper)])
        case list(), list() if len(shown) == len(printed):
            pairs = enumerate(zip(shown, printed, strict=True))
            return "; ".join(filter(None, (_missing(a, b, f"{path}[{i}]") for i, (a, b) in pairs)))
        case float(), int() | float():
            is_same = math.isclose(shown, printed, rel_tol=1e-6)
            return "" if is_same else f"{path}: {shown} is {printed}"
        case _:
            return "" if shown == printed else f"{path}: {shown!r} is {printed!r}"
