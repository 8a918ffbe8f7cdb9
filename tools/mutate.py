"""Does the test-suite notice? Deliberate bugs, one at a time, and the test that catches each.

    python tools/mutate.py                 all of them
    python tools/mutate.py --only pad      those whose name holds "pad"

Each bug of `tools/mutations.py` is put into a temporary copy of the tree, never into the working
tree, and a part of the tests is run there that should notice. A bug that all of them miss is a
hole in the tests. Exit status: 0 if every bug is caught, 3 if one is not, 1 if one no longer fits
the sources, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("backends", "compiler", "frontends", "passes", "tests")
FILES = ("pyproject.toml",)
TIMEOUT = 900.0
PASSED = "passed"


@dataclass(frozen=True)
class Verdict:
    """What the tests made of one bug."""

    name: str
    file: str
    caught: bool
    by: str
    seconds: float


def main() -> int:
    """Check the table, then run every bug."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="those whose name holds this")
    parser.add_argument("--check", action="store_true", help="only: do they fit the sources?")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    asked = parser.parse_args()
    chosen = [m for m in MUTATIONS if asked.only in m.name]
    if not chosen:
        parser.error(f"no mutation is called {asked.only!r}")
    if stale := [problem for m in chosen if (problem := misfit(m, ROOT))]:
        print("\n".join(stale), file=sys.stderr)
        return 1
    if asked.check:
        return 0
    tests = tuple(dict.fromkeys(test for m in chosen for test in m.tests))
    sound = run(Mutation("no change", chosen[0].file, "", "", tests))
    if sound.by != PASSED:
        print(f"the tests fail without any change: {sound.by}", file=sys.stderr)
        return 1
    verdicts = []
    for mutation in chosen:
        found = run(mutation)
        verdicts.append(found)
        if asked.format == "text":
            by = found.by if found.caught else "MISSED"
            print(f"{found.name:46} {by}  {found.seconds:.0f} s", flush=True)
    if asked.format == "json":
        print(json.dumps([asdict(v) for v in verdicts], indent=2))
    return 0 if all(v.caught for v in verdicts) else 3


def misfit(mutation: Mutation, root: Path) -> str:
    """Why a mutation cannot be applied to the tree, or nothing."""
    count = (root / mutation.file).read_text(encoding="utf-8").count(mutation.old)
    if count == 1:
        return ""
    return f"{mutation.name}: {mutation.file} holds the text {count} times: {mutation.old!r}"


def run(mutation: Mutation) -> Verdict:
    """Put one bug into a copy of the tree and run its tests there."""
    with tempfile.TemporaryDirectory(prefix="hqc-mutation-") as folder:
        copy = Path(folder)
        _copy(copy)
        path = copy / mutation.file
        text = path.read_text(encoding="utf-8")
        if mutation.old:
            path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
        begun = time.perf_counter()
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        command += ["-p", "no:randomly", *mutation.tests]
        environment = {**os.environ, "PYTHONPATH": str(copy / "lib")}
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        seconds = time.perf_counter() - begun
    first = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", done.stdout, re.MULTILINE)
    by = first.group(1).removeprefix("tests/") if first else f"exit status {done.returncode}"
    by = PASSED if done.returncode == 0 else by
    return Verdict(mutation.name, mutation.file, done.returncode == 1, by, round(seconds, 1))


def _copy(target: Path) -> None:
    """The tree, with `lib/hqc` laid out as an installed package."""
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, target / name)
    package = target / "lib" / "hqc"
    package.mkdir(parents=True)
    for entry in (target / "compiler").iterdir():
        (package / entry.name).symlink_to(entry)
    for name in ("passes", "frontends", "backends"):
        (package / name).symlink_to(target / name)


if __name__ == "__main__":
    sys.exit(main())
