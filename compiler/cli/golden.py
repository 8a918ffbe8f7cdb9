"""Golden tests of passes: a graph, the command to run on it, and what must come out.

    // RUN: hqc opt %s -p drop-ones -P drop_ones.py
    hqc.module @net version 1 state quantised ir 8 opset 17, qonnx 1 {
      ...
    }
    // CHECK: hqc.module
    // CHECK-NEXT: ...

The passes are verified and held to their contracts as everywhere. The CHECK lines are FileCheck's,
read by the package `filecheck`; `--update-golden` writes them anew, one for each line.
"""

from __future__ import annotations

import io
import re
import shlex
import tempfile
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path

from hqc import pipeline
from hqc.cli.parser import parse
from hqc.diagnostics import HqcError, Location, reject
from hqc.driver import steps_of
from hqc.pipeline.registry import Registry
from hqc.text import parse_module, print_module

_RUN = re.compile(r"^// RUN:(.*)$", re.MULTILINE)
_CHECK = re.compile(r"^// CHECK(-[A-Z]+)?:")


def check(path: Path, *, update: bool = False) -> bool:
    """Run a golden test, or write its CHECK lines anew.

    Args:
        path: of the `.hqir` file; files named with -P are looked for beside it.
        update: write what comes out as the CHECK lines; look at the difference.

    Returns:
        Whether the file was changed.

    Raises:
        HqcError: HQC310, what comes out does not match, or there is no RUN line; HQC404, the
            package filecheck is missing; and whatever the passes raise.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise reject("HQC002", f"cannot read {path}: {error}") from error
    output = _run(text, path)
    if not update:
        _compare(path, output)
        return False
    fresh = _with_checks(text, output)
    if fresh != text:
        path.write_text(fresh, encoding="utf-8")
    return fresh != text


def _run(text: str, path: Path) -> str:
    """What the passes make of the module in the file."""
    options = _options(text, path)
    registry = Registry.default().with_files(path.parent / file for file in options.passes_from)
    with tempfile.TemporaryDirectory() as folder:
        model = pipeline.run(
            parse_module(text),
            steps_of(options.pipeline),
            registry,
            reproducers=Path(folder),
        ).model
    return print_module(model)


def _options(text: str, path: Path) -> Namespace:
    """The options of the RUN line, as the command line reads them."""
    found = _RUN.search(text)
    wanted = "such as // RUN: hqc opt %s -p dce"
    if found is None:
        raise reject("HQC310", f"{path} has no RUN line", helps=(wanted,))
    words = shlex.split(found[1])
    given = words[3:]
    if words[:3] != ["hqc", "opt", "%s"] or not {w for w in given if w[0] == "-"} <= {"-p", "-P"}:
        where = Location(source=found[0])
        raise reject("HQC310", f"{path}: hqc opt with -p and -P", where=where, helps=(wanted,))
    options = parse(words[1:])
    assert isinstance(options, Namespace)
    return options


def _with_checks(text: str, output: str) -> str:
    kept = [line for line in text.splitlines() if not _CHECK.match(line)]
    first, *rest = [_literal(line) for line in output.splitlines()]
    checks = [f"// CHECK: {first}", *(f"// CHECK-NEXT: {line}" for line in rest)]
    return "\n".join([*kept, *checks]).rstrip() + "\n"


def _literal(line: str) -> str:
    """A line as FileCheck matches it literally: double brackets are variables and expressions."""
    return re.sub(r"\[\[+|\{\{+", lambda m: "{{" + re.escape(m[0]) + "}}", line)


def _compare(path: Path, output: str) -> None:
    try:
        from filecheck.finput import FInput
        from filecheck.matcher import Matcher
        from filecheck.options import Options
        from filecheck.parser import Parser, pattern_for_opts
    except ImportError as error:
        raise reject(
            "HQC404", "golden tests need the package filecheck", helps=("pip install filecheck",)
        ) from error
    options = Options(str(path))
    checks = io.StringIO(path.read_text(encoding="utf-8"))
    parser = Parser(options, checks, *pattern_for_opts(options))
    matcher = Matcher(options, FInput("output", output), parser)
    matcher.stderr = said = io.StringIO()
    with redirect_stdout(io.StringIO()):  # filecheck prints how it moves
        status = matcher.run()
    if status != 0:
        raise _mismatch(path, said.getvalue())


def _mismatch(path: Path, said: str) -> HqcError:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    return reject(
        "HQC310",
        f"{path}: the passes give something else",
        notes=tuple(line for line in plain.splitlines() if line.strip())[:12],
        helps=(f"where that is right: hqc golden {path} --update-golden, and look at the diff",),
    )
