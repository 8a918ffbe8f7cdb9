"""Writes the reference pages, or says which are stale."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from reference.pages import diagnostics_page, operators_page

PAGES: Mapping[str, Callable[[], str]] = {
    "operators.md": operators_page,
    "diagnostics.md": diagnostics_page,
}
#: Lines of a difference that are shown.
LINES = 40


def main() -> int:
    """Write or check; 1 if a page is stale."""
    parser = argparse.ArgumentParser(prog="tools/reference.py", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the pages")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    asked = parser.parse_args()
    stale = []
    for name, page in PAGES.items():
        path, text = asked.output / name, page()
        old = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not asked.check:
            path.write_text(text, encoding="utf-8")
            print(f"{path}: {'unchanged' if old == text else 'written'}", file=sys.stderr)
        elif old != text:
            stale.append(str(path))
            sides = old.splitlines(), text.splitlines()
            changes = list(difflib.unified_diff(*sides, str(path), "as the code says", n=0))
            print("\n".join(line.rstrip() for line in changes[:LINES]), file=sys.stderr)
    if stale:
        print(f"stale: {', '.join(stale)}; run: python tools/reference.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
