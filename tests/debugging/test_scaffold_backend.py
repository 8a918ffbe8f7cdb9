"""`hqc new backend` writes a package that installs, works, and passes its own tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin_site import environment, install
from support.small_model import Run

from hqc.diagnostics import Exit


@pytest.mark.long  # the commands of docs/backends.md, which are run too, do the same
def test_the_package_passes_its_tests(hqc: Run, tmp_path: Path) -> None:
    ended = hqc("new", "backend", "my-target", "--dir", "made", "-f", "json")
    assert ended.status == Exit.OK
    package = tmp_path / "made" / "hqc-my-target"
    files = {Path(p).name for p in ended.document["result"]["files"]}
    assert files == {p.name for p in package.rglob("*") if p.is_file()}
    install([package], tmp_path / "site")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        command, cwd=package, env=environment(tmp_path / "site"), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


@pytest.mark.parametrize("name", ["My-target", "vitis", "options", "a b", "../x", "1st", ""])
def test_names_that_do_not_do(name: str, hqc: Run, tmp_path: Path) -> None:
    ended = hqc("new", "backend", name)
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC001"])
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(hqc: Run, tmp_path: Path) -> None:
    (tmp_path / "hqc-mine").mkdir()
    ended = hqc("new", "backend", "mine")
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC004"])
    assert not list((tmp_path / "hqc-mine").iterdir())
    (tmp_path / "file").write_text("")
    ended = hqc("new", "backend", "mine", "--dir", "file")
    assert (ended.status, ended.codes) == (Exit.USAGE, ["HQC007"])
