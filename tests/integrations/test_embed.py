"""The blocks of docs/embed.md run, in order, and the CLI exports what they export."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.emulation_runs import shared_cache  # noqa: F401 - a fixture
from support.small_model import small_model

from hqc.cli import main
from hqc.integrations.mlir import export_mlir

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "embed.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```python(?: needs=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def is_here(module: str) -> bool:
    parts = module.split(".")
    found = (".".join(parts[: n + 1]) for n in range(len(parts)))
    return all(find_spec(name) is not None for name in found)


@pytest.mark.emulation
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "embed"}
    ran = 0
    blocks = BLOCK.findall(TEXT)
    assert sum(not needs for needs, _ in blocks) >= 8
    for needs, code in blocks:
        if needs and not is_here(needs):
            continue
        exec(compile(code, f"<block {ran}>", "exec"), space)
        ran += 1
    assert ran >= 8
    assert space["want"].shape == (100, 5)
    assert np.ptp(space["want"]) > 0


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    onnx.save(small_model(), path)
    return path


@pytest.mark.parametrize(("form", "suffix"), [("onnx-integer", "onnx"), ("finn", "onnx")])
def test_the_command_writes_onnx(model: Path, form: str, suffix: str, tmp_path: Path) -> None:
    target = tmp_path / f"out.{suffix}"
    assert main(["export", str(model), "--to", form, "-o", str(target)]) == 0
    found = onnx.load(target)
    kinds = {node.op_type for node in found.graph.node}
    assert "Quant" not in kinds
    assert kinds & ({"MatMulInteger"} if form == "onnx-integer" else {"MultiThreshold"})
    assert any(p.key.startswith("hqc.port.") for p in found.metadata_props)


def test_the_command_writes_mlir(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mlir"
    assert main(["export", str(model), "--to", "mlir", "-o", str(target)]) == 0
    assert target.read_text() == export_mlir(model)


def test_a_wrong_suffix_is_wrong_usage(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    assert main(["export", str(model), "--to", "mlir", "-o", str(target)]) == 2
    assert not target.exists()


def test_a_folder_that_is_not_there_is_said(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "none" / "out.mlir"
    assert main(["export", str(model), "--to", "mlir", "-o", str(target)]) == 2
