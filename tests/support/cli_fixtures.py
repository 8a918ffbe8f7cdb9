"""Fixtures of the command line's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from hqc import cli
from hqc.diagnostics import Exit
from support.small_model import Ended, Run, small_model


@pytest.fixture
def hqc(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process, in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ended:
        status = cli.main([str(a) for a in arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Ended(status, captured.out, captured.err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled directory, made once; tests copy it before they change it."""
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(small_model(), folder / "small.onnx")
    arguments = ["compile", folder / "small.onnx", "-o", folder / "out", "--check", "200", "-q"]
    assert cli.main([str(a) for a in arguments]) == Exit.OK
    return folder / "out"


@pytest.fixture
def copy(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "copy"))
