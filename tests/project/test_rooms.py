"""The house itself: small rooms, each with a sign on its door, and none that the page forgets."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("compiler", "passes", "frontends", "backends", "tools", "examples")
SOURCES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
PACKAGES = sorted(p for p in SOURCES if p.name == "__init__.py")
LINES, FILES = 400, 20


def test_no_source_file_is_long() -> None:
    long = {str(p.relative_to(ROOT)): n for p in SOURCES if (n := _lines(p)) > LINES}
    assert not long, f"split these by what they are for: {long}"


def test_no_folder_is_full() -> None:
    counts = Counter(p.parent.relative_to(ROOT).as_posix() for p in SOURCES)
    full = {folder: n for folder, n in counts.items() if n > FILES and folder != "passes"}
    assert not full, f"make rooms of these: {full}"


@pytest.mark.parametrize("path", PACKAGES, ids=lambda p: p.parent.relative_to(ROOT).as_posix())
def test_every_package_says_what_it_holds_and_what_not(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    prose = text.partition("\n\n    ")[0]  # an example may follow
    sentences = re.findall(r"[.!?](?=\s|$)", prose)
    assert prose, f"{path} has no docstring"
    assert path.parent.name in {"compiler", "torch"} or 2 <= len(sentences) <= 3, prose


def test_the_page_shows_every_room() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {p.parent for p in PACKAGES if p.parent.parent == ROOT / "compiler"}
    missing = {room.name for room in rooms if f"`compiler/{room.name}/`" not in page}
    assert not missing, f"docs/architecture.md does not name {missing}"


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
