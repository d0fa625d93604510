"""The step that installs what a node needs, without installing anything."""

from pathlib import Path

import pytest

from tests.support.kube_packages import PACKAGES, install, missing


def test_programs_that_are_there_are_not_installed(tmp_path: Path):
    program = tmp_path / "conntrack"
    program.touch(0o755)
    absent = missing(str(tmp_path))
    assert "conntrack" not in absent
    assert {"runc", "kubernetes-client"} <= set(absent) <= set(PACKAGES.values())


def test_packages_are_installed_after_an_update():
    ran: list[str] = []

    def run(command) -> str:
        ran.append(" ".join(command))
        return ""

    said = install(["runc", "iptables"], is_root=True, has_apt=True, run=run)
    assert said == "installed runc iptables"
    assert ran == ["apt-get update", "apt-get install -y runc iptables"]


@pytest.mark.parametrize(
    ("is_root", "has_apt", "why"),
    [(False, True, "only root"), (True, False, "no apt-get"), (True, True, "no network")],
)
def test_one_line_says_what_is_skipped_and_why(is_root: bool, has_apt: bool, why: str):
    said = install(["runc"], is_root=is_root, has_apt=has_apt, run=lambda _: "no network")
    assert why in said
    assert "skipped" in said
    assert "\n" not in said


def test_nothing_is_said_where_all_is_there():
    assert install([], is_root=False, has_apt=False, run=lambda _: "never") == ""
