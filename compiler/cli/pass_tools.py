"""The commands for those who write passes: bisect, reduce, new, golden."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path

from hqc import driver, ir
from hqc.cli.console import Console
from hqc.cli.opt import loaded_for, registry_of
from hqc.cli.result import Result
from hqc.diagnostics import HqcError
from hqc.ir.array_files import cannot_write
from hqc.pipeline.options import usage
from hqc.text import print_module

#: Lines of a difference that are printed; the document has all.
LINES = 40


def bisect_command(options: Namespace, console: Console) -> Result:
    """`hqc bisect`."""
    from hqc.debugging.bisect import bisect

    registry = registry_of(options, console)
    steps = driver.steps_of(options.pipeline)
    model, given = loaded_for(options)
    found = bisect(
        model,
        steps,
        registry,
        samples=given,
        seed=options.seed,
        pass_timeout=options.pass_timeout,
    )
    lines = [
        f"pass      {found.step}, run {found.run} of the pipeline, which promises {found.contract}"
    ]
    if found.rewrite is not None and found.change is not None:
        lines.append(f"rewrite   {found.rewrite} of {found.rewrites}, by rule {found.change.rule}")
        lines.append(f"node      {found.change.where}")
        limit = f"max-rewrites={found.rewrite - 1}"
        lines.append(f"good with {limit}, wrong with max-rewrites={found.rewrite}")
    lines.append(f"differs   {found.difference}")
    diff = found.diff().splitlines()
    shown = [*diff[:LINES], *([f"... {len(diff) - LINES} more lines"] if diff[LINES:] else [])]
    document = {
        "pass": found.step,
        "run": found.run,
        "rewrite": found.rewrite,
        "rewrites": found.rewrites,
        "rule": found.change.rule if found.change else None,
        "node": found.change.where.node if found.change else None,
        "difference": found.difference,
        "diff": "\n".join(diff),
    }
    return Result("\n".join([*lines, "", *shown]), document)


def reduce_command(options: Namespace, console: Console) -> Result:
    """`hqc reduce`."""
    from hqc.debugging.reduce import Check, reduce

    output = Path(options.output)
    if output.suffix not in (".onnx", ".hqir"):
        raise usage(f"{output}: the graph goes to .onnx or .hqir")
    registry = registry_of(options, console)
    steps = driver.steps_of(options.pipeline)
    model, given = loaded_for(options)
    check = Check(steps, registry, options.check, options.seed, options.pass_timeout, given)
    before = len(model.graph)
    small = reduce(model, check, options.timeout)
    try:
        if output.suffix == ".onnx":
            ir.save(small, output)
        else:
            output.write_text(print_module(small, weights="full"), encoding="utf-8")
    except OSError as error:
        raise cannot_write(output, error) from error
    words = ["hqc", "opt", str(output)]
    words += ["-p", options.pipeline] if options.pipeline is not None else []
    words += [word for file in options.passes_from for word in ("-P", file)]
    after = len(small.graph)
    console.line(f"{output}: {after} of {before} nodes, {check.tried} graphs tried")
    console.line(f"see it with: {shlex.join(words)}")
    document = {
        "output": str(output),
        "check": check.wanted,
        "nodes_before": before,
        "nodes_after": after,
        "tried": check.tried,
        "command": shlex.join(words),
    }
    return Result(print_module(small), document)


def new_command(options: Namespace, console: Console) -> Result:
    """`hqc new`."""
    folder = Path(options.dir)
    if options.kind == "backend":
        return _new_backend(options.name, folder, console)
    from hqc.cli.golden import check
    from hqc.debugging.scaffold import new_pass

    made = new_pass(options.name, folder)
    check(made[1], update=True)
    for path in made:
        console.line(f"{path} written")
    console.line(f"try: hqc golden {made[1]}")
    console.line(f"     hqc opt {made[1]} -P {made[0]} -p {options.name} --print-diff all")
    return Result(document={"files": [str(path) for path in made]})


def _new_backend(name: str, folder: Path, console: Console) -> Result:
    from hqc.debugging.scaffold_backend import new_backend

    made = new_backend(name, folder)
    for path in made:
        console.line(f"{path} written")
    console.line(f"try: pip install -e {made[0].parent.absolute()} && hqc backends")
    return Result(document={"files": [str(path) for path in made]})


def golden_command(options: Namespace, console: Console) -> Result:
    """`hqc golden`."""
    from hqc.cli.golden import check

    changed, failed = [], []
    for name in options.files:
        try:
            if check(Path(name), update=options.update_golden):
                changed.append(name)
                console.line(f"{name} written")
            else:
                console.line(f"{name} matches")
        except HqcError as error:
            failed.append((name, error))
    document = {"changed": changed, "failed": [name for name, _ in failed]}
    if not failed:
        return Result(document=document)
    found = tuple(d for _, error in failed for d in error.diagnostics)
    return Result(document=document, exit=failed[0][1].exit, diagnostics=found)
