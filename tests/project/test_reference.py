"""The reference pages are what the code says now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from fuzzing.rows import rows
from reference.families import families
from reference.pages import diagnostics_page, listed_operators
from reference.sources import prose, refusals
from support.cli_fixtures import Run

from hqc.diagnostics import CODES

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("operators.md", "diagnostics.md")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "reference.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_pages_are_up_to_date() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named_with_what_changed(tmp_path: Path) -> None:
    for name in PAGES:
        shutil.copy(ROOT / "docs" / name, tmp_path)
    path = tmp_path / "diagnostics.md"
    path.write_text(path.read_text().replace(CODES["HQC205"], "something else"))
    done = run("--check", "-o", tmp_path)
    assert done.returncode == 1
    assert "+HQC205: " + CODES["HQC205"] in done.stderr
    assert "run: python tools/reference.py" in done.stderr
    assert str(tmp_path / "operators.md") not in done.stderr


def test_every_operator_of_the_coverage_table_is_listed() -> None:
    """But for those that the host computes behind the hardware."""
    used = {node.op_type for _, _, proto in rows() for node in proto.graph.node}
    assert used - listed_operators() == {"Softmax", "ArgMax"}


def test_what_is_listed_exists() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    for family in families():
        assert any(prose(thing) for thing in family.about) or family.remedies
        plain = {n for n in family.operators if not n.startswith("qonnx.")}
        theirs = {n for n in plain if n.startswith(("QLinear", "QGemm"))}  # onnxruntime's own
        assert plain - theirs <= known


def test_refusals_are_read_from_the_code() -> None:
    found = {
        code for family in families() for thing in family.refuses for code, *_ in refusals(thing)
    }
    assert {"HQC101", "HQC102", "HQC105", "HQC107", "HQC108", "HQC202", "HQC205"} <= found
    assert found <= set(CODES)


@pytest.mark.parametrize("code", ["HQC001", "HQC202", "HQC614"])
def test_the_page_of_diagnostics_is_what_the_command_prints(code: str, hqc: Run) -> None:
    assert f"## {code}\n\n{hqc('explain', code).out.rstrip()}\n" in diagnostics_page()
