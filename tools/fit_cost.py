"""Fit the table that `hqc estimate --quick` predicts with, and say how far off it is.

    python tools/measure_layers.py -n 320 -o build/layers.jsonl      an hour: Yosys, 320 times
    python tools/measure_layers.py --solve -n 600 -o build/solved.jsonl  minutes: counted
    python tools/fit_cost.py build/layers.jsonl build/solved.jsonl --write

With `--target asic-osu018`, of both tools, the area of cells is measured (minutes) and fitted:
flip-flops are taken out of it, at the area of the one that a synthesis of one bit takes.

The layers measured last are held out; the table of errors is of those. The coefficients are least
absolute deviations in relative terms (least squares, reweighted), so odd layers do not bend them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from measure_layers import CLOCK_NS, Sample, read, solved_network
from random_layers import KINDS, random_network
from random_requantisers import FIRST, TRIES, requantiser_table
from scipy.optimize import nnls
from scipy.stats import spearmanr

from hqc.backends.estimate.counts import OperationCounts
from hqc.backends.estimate.flows import flow_of
from hqc.backends.estimate.measure import measure
from hqc.backends.estimate.operation_counts import operation_counts
from hqc.backends.estimate.quick import AREA, LUTS, Coefficients, matrix_logs, scaling_logs
from hqc.ir import Array

TABLE = Path(__file__).resolve().parents[1] / "backends" / "estimate" / "quick.json"
#: Features of the power laws.
ADDERS = ("one", "adders", "sharing", "common", "width_in", "width_out", "span", "columns", "tree")
MERGED = ("one", "width_in", "width_out", "span", "tree", "signed")
DEPTH = ("one", "adders", "width_in", "width_out", "span", "digits", "deepest")
SCALED = ("one", "width_in", "width_out", "active", "digits", "dropped")
#: Counts of layers other than matrices.
COUNTS = (
    *("adder", "moved", "round", "sticky", "clamp", "bound", "compare"),
    *("larger", "longer", "product", "table", "select", "flip"),
)
#: What whole networks of several layers are taken to be within: errors of layers partly cancel.
WHOLE = {LUTS: 0.12, AREA: 0.15}
#: Layers below so many look-up tables, or um2, are too small for a relative error.
_LEAST = {LUTS: 16, AREA: 2500}
#: Requantisers of arguments of so many bits may be tables instead.
_TABLED = 8
Row = tuple[Sample, OperationCounts]
_UNITS = {LUTS: "lut", AREA: "area_um2"}
_REGISTER = "always @(posedge clk) y <= x;"
_NEGATION = "always @* y = -x;"


def main() -> int:
    """Fit, print the errors, and write the table if told to."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("layers", type=Path, help="measured by Yosys")
    p.add_argument("solved", type=Path, help="solved for adders")
    p.add_argument(
        "--test", type=int, default=66, metavar="N", help="layers held out: the last ones"
    )
    p.add_argument("--target", default=LUTS, choices=list(_UNITS))
    p.add_argument("--tries", type=int, default=TRIES, help="requantisers per size in their table")
    p.add_argument("--write", action="store_true", help=f"replace the target in {TABLE.name}")
    options = p.parse_args()
    start = _start(options.target)
    rows = _rows(read(options.layers), options.target, start.register)
    seen, unseen = rows[: -options.test], rows[-options.test :]
    fit = _fit(start, seen, read(options.solved))
    fit = replace(fit, requantisers=tuple(map(tuple, requantiser_table(fit, options.tries))))
    bars = _print(fit, seen, unseen)
    record = _record(fit, bars, seen, unseen, flow_of(options.target, CLOCK_NS).name)
    if options.write:
        known = json.loads(TABLE.read_text(encoding="utf-8"))
        text = json.dumps(known | {options.target: record}, indent=1)
        TABLE.write_text(text + "\n", encoding="utf-8")
    return 0


def _start(target: str) -> Coefficients:
    """What a target has without a fit: the sizes of a flip-flop and of a negated bit."""
    area, _ = _bits(target, _REGISTER)
    found, luts = _bits(target, _NEGATION)
    return Coefficients(
        unit=_UNITS[target],
        register=area,
        adders={},
        merged={},
        negated=found or luts,
        factors={},
        scaled={},
        stepped=1.0,
        depth={},
        registers={},
        bars={},
        total=WHOLE[target],
        requantisers=(),
        first=FIRST,
        fitted={},
    )


def _bits(target: str, body: str) -> tuple[float, float]:
    """Area and look-up tables of a bit of a statement on eight."""
    ports = "input clk, input [7:0] x, output reg [7:0] y"
    with tempfile.TemporaryDirectory(prefix="hqc-bits-") as folder:
        path = Path(folder) / "bits.v"
        path.write_text(f"module bits({ports});\n{body}\nendmodule\n", encoding="utf-8")
        figures = measure([path], "bits", target, clock_ns=CLOCK_NS)
    return figures.area_um2 / 8, figures.lut / 8


def _rows(samples: list[Sample], target: str, register: float) -> list[Row]:
    """Samples that are large enough for a relative error, and what is counted of them.

    Each has its `size`: look-up tables, or the area without flip-flops.
    """
    sizes = [s["lut"] if target == LUTS else s["area"] - register * s["ff"] for s in samples]
    kept = [{**s, "size": size} for s, size in zip(samples, sizes, strict=True)]
    kept = [s for s in kept if s["size"] >= _LEAST[target]]
    return [(s, _tally(random_network(s["kind"], s["seed"]))) for s in kept]


def _tally(network: Any) -> OperationCounts:
    return list(operation_counts(network).values())[-1]


# --- fits -----------------------------------------------------------------------------------


def _fit(start: Coefficients, rows: list[Row], solved: list[Sample]) -> Coefficients:
    counted = [(s, _tally(solved_network(s["kind"], s["seed"]))) for s in solved]
    found = [(s, t.matrices[0][0]) for s, t in counted if t.matrices]
    found = [(s, m) for s, m in found if m.adders and s["adder_bits"] > m.turned]
    bits = np.array([s["adder_bits"] - m.turned for s, m in found])
    features = [matrix_logs(m) for _, m in found]
    adders = _power_law(features, bits, ADDERS)
    depth = _power_law(features, np.array([s["path"] for s, _ in found]), DEPTH)
    scaled = _scaled([(s, t) for s, t in counted if t.scalings], rows)
    others = [row for row in rows if not row[1].matrices and not row[1].scalings]
    factors = _factors(others, LUTS if start.unit == _UNITS[LUTS] else AREA)
    dense = [row for row in rows if row[1].matrices and row[1].matrices[0][0].adders]
    fit = replace(start, adders=adders, depth=depth, scaled=scaled, factors=factors)
    fit = replace(fit, registers=_registers(rows), stepped=_stepped(start, rows))
    return _dense(fit, dense)


def _stepped(start: Coefficients, rows: list[Row]) -> float:
    """Size of a look-up table that a count of them stands for; of FPGAs that is one."""
    if not start.register:
        return 1.0
    found = [s["size"] / s["counted"] for s, t in rows if t.scalings and not s["adder_bits"]]
    return round(float(np.median(found)), 4)


def _scaled(counted: list[Row], rows: list[Row]) -> dict[str, float]:
    """The law of what circuits of requantisers count, times what Yosys makes of a count."""
    alone = [(s, t.scalings[0]) for s, t in counted if not t.counts and s["counted"] > 0]
    each = [(s["counted"] / x.elements, x) for s, x in alone]
    kept = [(count, x) for count, x in each if x.width_in > _TABLED]
    features = [scaling_logs(scaling) for _, scaling in kept]
    law = _power_law(features, np.array([count for count, _ in kept]), SCALED)
    ratios = [s["size"] / s["counted"] for s, t in rows if t.scalings and not t.counts]
    law["one"] = round(law["one"] + float(np.log(np.median(ratios))), 5)
    return law


def _power_law(
    features: list[dict[str, float]], values: Array, names: tuple[str, ...]
) -> dict[str, float]:
    table = np.array([[f[name] for name in names] for f in features])
    found, wanted = np.zeros(len(names)), np.log(values)
    weights = np.ones(len(values))
    for _ in range(30):
        found = np.linalg.lstsq(table * weights[:, None], wanted * weights, rcond=None)[0]
        weights = 1 / np.sqrt(np.maximum(np.abs(table @ found - wanted), 0.03))
    zero = dict.fromkeys(features[0], 0.0)
    return zero | {n: round(float(c), 5) for n, c in zip(names, found, strict=True)}


def _factors(rows: list[Row], target: str) -> dict[str, float]:
    names = COUNTS if target == AREA else COUNTS[:-1]  # tables of look-up tables are all one
    table = np.array([[tally.counts[name] for name in names] for _, tally in rows], float)
    found = _non_negative(table, np.array([s["size"] for s, _ in rows], float))
    fitted = {name: round(float(c), 4) for name, c in zip(names, found, strict=True)}
    return dict.fromkeys(COUNTS, 0.0) | fitted


def _non_negative(table: Array, values: Array) -> Array:
    weights = 1 / values
    found: Array = np.zeros(table.shape[1])
    for _ in range(30):
        found = nnls(table * weights[:, None], values * weights)[0]
        off = np.abs(table @ found / values - 1)
        weights = 1 / values / np.sqrt(np.maximum(off, 0.03))
    return found


def _dense(fit: Coefficients, rows: list[Row]) -> Coefficients:
    """The law of the size per bit of a matrix's adders, and the factor of bias adders."""
    tried = []
    unit = 1.0 if not fit.register else fit.factors["adder"]
    for offset in np.arange(0, 1.01, 0.1):
        held = {**fit.factors, "offset": round(float(unit * offset), 2)}
        found = replace(fit, factors=held)
        found = replace(found, merged=_merged(rows, found))
        tried.append((float(np.median(np.abs(_errors(found, rows)))), found))
    return min(tried, key=lambda pair: pair[0])[1]


def _merged(rows: list[Row], fit: Coefficients) -> dict[str, float]:
    plain = [sum(fit.factors[n] * c for n, c in tally.counts.items()) for _, tally in rows]
    matrices = [tally.matrices[0][0] for _, tally in rows]
    bits = np.array([fit.adder_bits(m) for m in matrices])
    sizes = np.array([s["size"] for s, _ in rows], float)
    left = np.maximum(sizes - plain, 0.1 * sizes)
    return _power_law([matrix_logs(m) for m in matrices], left / bits, MERGED)


def _registers(rows: list[Row]) -> dict[str, float]:
    kept = [(s, tally) for s, tally in rows if s["stages"]]
    stages = np.array([s["stages"] for s, _ in kept], float)
    table = np.array([[tally.bits_in, tally.bits_out] for _, tally in kept], float)
    values = np.array([max(1, s["ff"] + 16 * s["srl"]) for s, _ in kept], float)
    found = _non_negative(table * stages[:, None], values)
    return {name: round(float(c), 4) for name, c in zip(("in", "out"), found, strict=True)}


# --- what came out --------------------------------------------------------------------------


def _errors(fit: Coefficients, rows: list[Row]) -> Array:
    return np.array([fit.logic(tally) / s["size"] - 1 for s, tally in rows])


def _print(fit: Coefficients, seen: list[Row], unseen: list[Row]) -> dict[str, float]:
    """Print errors on what was held out; the bars are of all layers of a kind."""
    print(f"{'held out':12} {'layers':>6} {'median':>8} {'90 %':>8} {'rank':>7}")
    bars = {}
    for kind in ("all", *KINDS):
        chosen = [row for row in unseen if kind in ("all", row[0]["kind"])]
        both = [row for row in (*seen, *unseen) if row[0]["kind"] == kind]
        if both:
            bars[kind] = round(float(np.quantile(np.abs(_errors(fit, both)), 0.9)), 3)
        if not chosen:
            continue
        off = np.abs(_errors(fit, chosen))
        pairs = [(fit.logic(tally), s["size"]) for s, tally in chosen]
        rank = spearmanr(*zip(*pairs, strict=True)).statistic if len(pairs) > 2 else float("nan")
        print(
            f"{kind:12} {len(chosen):6} {np.median(off):8.1%} {np.quantile(off, 0.9):8.1%} "
            f"{rank:7.4f}"
        )
    return bars


def _record(
    fit: Coefficients, bars: dict[str, float], seen: list[Row], unseen: list[Row], flow: str
) -> dict[str, Any]:
    off = np.abs(_errors(fit, unseen))
    pairs = [(fit.logic(tally), s["size"]) for s, tally in unseen]
    return {
        "unit": fit.unit,
        "register": fit.register,
        "adders": fit.adders,
        "merged": fit.merged,
        "negated": fit.negated,
        "factors": fit.factors,
        "scaled": fit.scaled,
        "stepped": fit.stepped,
        "depth": fit.depth,
        "registers": fit.registers,
        "bars": bars,
        "total": fit.total,
        "requantisers": fit.requantisers,
        "first": FIRST,
        "fitted": {
            "tool": seen[0][0]["tool"],
            "flow": flow,
            "da4ml": metadata.version("da4ml"),
            "layers": len(seen),
            "held_out": len(unseen),
            "median": round(float(np.median(off)), 3),
            "within": round(float(np.quantile(off, 0.9)), 3),
            "rank": round(float(spearmanr(*zip(*pairs, strict=True)).statistic), 4),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
