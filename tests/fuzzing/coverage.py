"""Runs every row of the coverage table on every backend and writes what came out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzzing.emulate import Graph, emulate, lowered
from fuzzing.rows import Row, rows
from hqc.diagnostics import HqcError
from hqc.pipeline.backend import BackendOptions
from hqc.pipeline.registry import Registry

#: Random samples, range corners and rounding ties that each row is emulated on.
SAMPLES = 500
BATCH = 40
_HEAD = """# What compiles, and what is exact

Made by `python tools/coverage.py`: each row is a small graph that was compiled by every backend,
emulated from what they wrote (C++, or Verilog cycle by cycle) on {samples} samples (random, range
corners, rounding ties), and compared with the exact reference with `==`. `exact` means that no
number differed; `refused` gives the code of the diagnostic, and the reasons stand below the table.
"""


@dataclass(frozen=True)
class Cell:
    """One row on one target: what is written in the table, and a refusal's reason."""

    section: str
    title: str
    target: str
    verdict: str
    reason: str = ""


def main() -> int:
    """Write the table; 3 if a row is neither exact nor refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--backends", default="vitis,catapult,rtl")
    parser.add_argument("--io", default="io_parallel,io_stream")
    parser.add_argument("--only", default="", help="rows whose section or title holds this")
    parser.add_argument("-f", "--format", choices=("text", "json"), default="text")
    asked = parser.parse_args()
    table = [row for row in rows() if asked.only in f"{row[0]}: {row[1]}"]
    if not table:
        parser.error(f"no row's section or title holds {asked.only!r}")
    able = {name: b.capabilities().io for name, b in Registry.builtin().backends.items()}
    wanted = [(b, io) for b in asked.backends.split(",") for io in asked.io.split(",")]
    targets = [(backend, io) for backend, io in wanted if io in able[backend]]
    cells = [cell for target in targets for cell in _column(table, *target)]
    asked.output.write_text(_markdown(table, cells, targets), encoding="utf-8")
    wrong = [c for c in cells if c.verdict == "WRONG"]
    if asked.format == "json":
        print(json.dumps([asdict(c) for c in cells], indent=2))
    for cell in wrong:
        print(f"{cell.target}: {cell.title}: {cell.reason}", file=sys.stderr)
    print(f"{len(cells)} cells, {len(wrong)} wrong: {asked.output}", file=sys.stderr)
    return 3 if wrong else 0


def _column(table: Sequence[Row], backend: str, io: str) -> list[Cell]:
    """All rows on one target, compiled together in batches."""
    target = f"{backend} {io}"
    made, accepted = {}, []
    for position, (section, title, proto) in enumerate(table):
        try:
            lowered(proto)
        except HqcError as error:
            first = error.diagnostics[0]
            verdict = f"refused {first.code}"
            made[position] = Cell(section, title, target, verdict, first.message)
        else:
            accepted.append(Graph(position, proto))
    chosen, options = Registry.builtin().backends[backend], BackendOptions(io=io)
    for start in range(0, len(accepted), BATCH):
        batch = accepted[start : start + BATCH]
        found = emulate(batch, chosen, options, SAMPLES)
        for graph in batch:
            section, title, _ = table[graph.seed]
            verdict, reason = "exact", ""
            if graph.seed in found.refused:
                code, _, reason = found.refused[graph.seed].partition(": ")
                verdict = f"refused {code}"
            elif graph.seed in found.failed:
                verdict, reason = "WRONG", found.failed[graph.seed]
            made[graph.seed] = Cell(section, title, target, verdict, reason)
    return [made[position] for position in range(len(table))]


def _markdown(
    table: Sequence[Row], cells: Sequence[Cell], targets: Sequence[tuple[str, str]]
) -> str:
    names = [f"{backend} {io}" for backend, io in targets]
    by_place = {(c.title, c.target): c for c in cells}
    lines = [_HEAD.format(samples=SAMPLES)]
    section = ""
    reasons: dict[str, str] = {}
    for group, title, _ in table:
        if group != section:
            section = group
            lines += ["", f"## {section}", "", "| | " + " | ".join(names) + " |"]
            lines.append("|---|" + "---|" * len(names))
        row = [by_place[title, name] for name in names]
        lines.append(f"| {title} | " + " | ".join(c.verdict for c in row) + " |")
        reasons |= {f"{c.title}: {c.verdict.split()[-1]}": c.reason for c in row if c.reason}
    if reasons:
        lines += ["", "## Reasons", ""]
        lines += [f"- {where}: {reason.splitlines()[0]}" for where, reason in reasons.items()]
    exact = sum(c.verdict == "exact" for c in cells)
    lines += ["", f"{exact} of {len(cells)} cells are exact; none differs."]
    if any(c.verdict == "WRONG" for c in cells):
        lines[-1] = f"{exact} of {len(cells)} cells are exact; SOME DIFFER."
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
