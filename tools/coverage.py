"""Write docs/coverage.md: what each backend compiles, emulated and compared, never claimed.

    python tools/coverage.py
    python tools/coverage.py --backends vitis --io io_parallel -o build/coverage.md

The rows stand in tests/fuzzing/rows.py. Exit status: 0 if every row is exact or refused with a
reason, 3 if one is wrong, 2 for wrong usage.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 3600.0


def main() -> int:
    """Run the table's own program where the tests' modules can be imported."""
    paths = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    output = [] if {"-o", "--output"} & set(sys.argv) else ["-o", str(ROOT / "docs/coverage.md")]
    command = [sys.executable, "-m", "fuzzing.coverage", *output, *sys.argv[1:]]
    return subprocess.run(command, env=environment, timeout=TIMEOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
