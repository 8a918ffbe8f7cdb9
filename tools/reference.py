"""Write docs/operators.md and docs/diagnostics.md from the tables and docstrings of the code.

    python tools/reference.py
    python tools/reference.py --check

The pages are made in tests/reference. Exit status: 0; 1 if --check finds a page stale; 2 for wrong
usage.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600.0


def main() -> int:
    """Run the pages' own program where the tests' modules can be imported."""
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    output = [] if {"-o", "--output"} & set(sys.argv) else ["-o", str(ROOT / "docs")]
    command = [sys.executable, "-m", "reference", *output, *sys.argv[1:]]
    return subprocess.run(command, env=environment, timeout=TIMEOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
