"""What users import is documented, and does not change unnoticed."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.api_snapshot import ROOT, public_names, resolve, snapshot

import hqc

PINNED = Path(__file__).resolve().parents[1] / "public_api.txt"
#: Modules of which everything that users see is promised.
#: Modules of which everything is public, and where the pages say it is.
WHOLE = {
    "hqc": "hqc",
    "hqc.pipeline.rewriter": "hqc.pipeline",
    "hqc.frontends.torch": "hqc.frontends.torch",
}


def test_the_public_api_is_the_pinned_one(update_golden: bool) -> None:
    found = snapshot()
    if update_golden:
        PINNED.write_text(found, encoding="utf-8")
    pinned = PINNED.read_text(encoding="utf-8")
    sides = pinned.splitlines(), found.splitlines()
    changes = [line for line in difflib.unified_diff(*sides, n=0, lineterm="") if line[0] in "+-"]
    assert not changes, (
        "the public API has changed:\n"
        + "\n".join(changes[2:])
        + "\nWhere that is meant, run: pytest tests/project/test_public_api.py --update-golden,"
        + " look at the difference, and say it in CHANGELOG.md."
    )


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_there_and_is_documented(name: str) -> None:
    found = resolve(name)
    if callable(found) and getattr(found, "__module__", "").startswith("hqc"):
        assert (found.__doc__ or "").strip(), f"{name} has no docstring"


@pytest.mark.parametrize(("module", "public"), WHOLE.items())
def test_all_of_these_modules_is_documented(module: str, public: str) -> None:
    given = [n for n in resolve(module).__all__ if n not in ("__version__", "Pattern", "Rule")]
    missing = [n for n in given if f"{public}.{n}" not in public_names()]
    assert not missing, f"document {missing} of {module} in docs/api, or take it out of __all__"


def test_what_the_package_promises_is_there() -> None:
    assert set(hqc.__all__) <= set(dir(hqc))
    assert all(getattr(hqc, name) is not None for name in hqc.__all__)


# --- what the documentation and the plug-ins import -----------------------------------------------


def _texts() -> Iterator[tuple[str, str]]:
    """(file, Python) of the blocks in the pages, the templates and the plug-ins of the tests."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for block in re.findall(r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.M | re.S):
            yield page.name, block
    for template in sorted((ROOT / "compiler" / "debugging" / "templates").rglob("*.py.in")):
        yield template.name, re.sub(r"\$\{\w+\}|\$\w+", "x", template.read_text())
    for plugin in ("c99", "acme"):
        for path in sorted((ROOT / "tests" / "plugins" / plugin).rglob("*.py")):
            yield f"{plugin}/{path.name}", path.read_text()


def _imports() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for where, text in _texts():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hqc":
                found |= {(where, f"{node.module}.{alias.name}") for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {(where, a.name) for a in node.names if a.name.split(".")[0] == "hqc"}
    return found


def test_what_the_pages_and_plugins_import_is_public() -> None:
    names = public_names()
    modules = {name.rpartition(".")[0] for name in names} | {"hqc"}
    found = _imports()
    assert len(found) > 40
    public = {id(resolve(name)) for name in names}
    others = [(where, n) for where, n in found if n not in names and n not in modules]
    private = sorted((where, n) for where, n in others if id(resolve(n)) not in public)
    assert not private, f"document these in docs/api, or do not import them: {private}"
