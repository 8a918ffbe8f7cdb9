"""Predict what an open synthesis will count, in milliseconds: no adders are built, none is asked.

Each layer's logic is counted (`hqc.backends.estimate.operation_counts`); a small table of
coefficients per target turns counts into its size: look-up tables, or the area of an ASIC's cells.
It was fitted by `tools/fit_cost.py` to what Yosys made of random layers, and says on how
many, with which tool, and how far off it was on layers it had not seen.

* The adders of a constant matrix are a power law of its features (`Matrix`): digits, how often
  pairs of them recur, how near columns are, widths.
* Everything else is a sum of counts, each with a factor that is not negative.
* Flip-flops are a share of the bits that pass a layer, per pipeline stage. They are no look-up
  tables, but part of an area: so many times the area of the library's flip-flop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hqc.backends.estimate.counts import OperationCounts, Scaling
from hqc.backends.estimate.features import Matrix
from hqc.backends.estimate.operation_counts import operation_counts
from hqc.backends.layers import Layer, Network
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.diagnostics import reject

#: Targets that figures are predicted for: look-up tables of one, area of the other.
LUTS, AREA = "fpga-xcup", "asic-osu018"
#: The clock period that the coefficients are for, in nanoseconds.
CLOCK_NS = 5.0
#: Inputs of a look-up table.
_LUT_INPUTS = 6
#: Inputs up to which a requantiser may be a table.
_TABLE_INPUTS = 12
_TABLE = Path(__file__).with_name("quick.json")


@dataclass(frozen=True)
class Coefficients:
    """The fitted table of a target. A size is a number of look-up tables, or um2.

    Attributes:
        unit: what sizes are called in JSON: "lut" or "area_um2".
        register: size of a flip-flop; 0 where it is none of the figure.
        adders: exponents of a matrix's features, for the bits of its adders.
        merged: exponents of the features, for the size of a bit.
        negated: size of a bit of an input that is negated.
        factors: size of a count.
        scaled: exponents of a requantiser's features, for its size.
        stepped: size of a look-up table where the requantiser is one.
        depth: exponents of a matrix's features, for the picoseconds of a matrix's longest path.
        registers: flip-flops of a stage, by what is counted.
        bars: by kind of layer, the relative error that 90 % of the layers kept within.
        total: the relative error that whole networks are taken to keep within; chosen, not
            fitted, from the networks in docs/hardware.md.
        requantisers: size of one requantiser with a free scale, registers at `CLOCK_NS` included:
            rows are widths of the accumulator from `first[0]` on, columns widths of the result
            from `first[1]` on.
        first: see there.
        fitted: on what: tool, flow, layers, versions.
    """

    unit: str
    register: float
    adders: Mapping[str, float]
    merged: Mapping[str, float]
    negated: float
    factors: Mapping[str, float]
    scaled: Mapping[str, float]
    stepped: float
    depth: Mapping[str, float]
    registers: Mapping[str, float]
    bars: Mapping[str, float]
    total: float
    requantisers: tuple[tuple[float, ...], ...]
    first: tuple[int, int]
    fitted: Mapping[str, Any]

    # --- matrices ---------------------------------------------------------------------------

    def adder_bits(self, matrix: Matrix) -> float:
        """Bits of the adders that a solver leaves of a matrix."""
        if not matrix.adders:
            return float(matrix.turned)
        return power(self.adders, matrix_logs(matrix)) + matrix.turned

    def matrix(self, matrix: Matrix) -> float:
        """Size of a matrix."""
        bits = self.adder_bits(matrix)
        if not matrix.adders:
            return bits * self.negated
        return bits * power(self.merged, matrix_logs(matrix))

    def path(self, matrix: Matrix) -> float:
        """Picoseconds through a matrix."""
        return power(self.depth, matrix_logs(matrix)) if matrix.adders else 0.0

    def scaling(self, scaling: Scaling) -> float:
        """Size of a requantiser: of its adders, or of a table where that is less."""
        adders = power(self.scaled, scaling_logs(scaling))
        if scaling.width_in > _TABLE_INPUTS:
            return adders
        return min(adders, self.stepped * _steps(scaling.width_in, round(scaling.width_out)))

    # --- layers -----------------------------------------------------------------------------

    def stages(self, tally: OperationCounts, clock_ns: float) -> float:
        """Pipeline stages that a layer's longest path fills."""
        path = tally.levels + max((self.path(m) for m, _ in tally.matrices), default=0.0)
        return path / (1000 * cutoff_of(clock_ns))

    def flip_flops(self, stages: float, bits_in: float, bits_out: float) -> float:
        """Flip-flops of a layer of so many stages, from the bits it reads to the bits it gives."""
        return stages * (self.registers["in"] * bits_in + self.registers["out"] * bits_out)

    def whole(self, tally: OperationCounts, clock_ns: float = CLOCK_NS) -> float:
        """Size of a layer, flip-flops included where they are part of it."""
        stages = self.stages(tally, clock_ns)
        held = self.flip_flops(stages, tally.bits_in, tally.bits_out)
        return self.logic(tally) + self.register * held

    def logic(self, tally: OperationCounts) -> float:
        """Size of a layer without its flip-flops."""
        sums = sum(copies * self.matrix(matrix) for matrix, copies in tally.matrices)
        sums += sum(x.elements * self.scaling(x) for x in tally.scalings)
        return sums + sum(self.factors[name] * n for name, n in tally.counts.items())

    def requantiser(self, width: float, bits: int) -> float:
        """Size of a requantiser: accumulator of so many bits, result of so many.

        Widths between two rows are interpolated, those beyond the table taken at its edge.
        """
        column = min(max(bits - self.first[1], 0), len(self.requantisers[0]) - 1)
        place = min(max(width - self.first[0], 0.0), len(self.requantisers) - 1.0)
        low = min(int(place), len(self.requantisers) - 2)
        below, above = (self.requantisers[row][column] for row in (low, low + 1))
        return below + (above - below) * (place - low)


def _steps(width: float, bits: int) -> float:
    """Look-up tables of a table that ascends: bit k of its results changes 2**k times at most."""
    blocks = 2.0 ** max(0.0, width - _LUT_INPUTS)
    return math.fsum(min(2.0**k, blocks) for k in range(bits)) + bits * math.log2(blocks) / 3


def power(exponents: Mapping[str, float], logs: Mapping[str, float]) -> float:
    """A product of powers of features."""
    return math.exp(sum(exponents[name] * value for name, value in logs.items()))


def scaling_logs(scaling: Scaling) -> dict[str, float]:
    """Logarithms of a requantiser's features, beside a one for the constant factor."""
    return {
        "one": 1.0,
        "width_in": math.log(scaling.width_in),
        "width_out": math.log(scaling.width_out),
        "active": math.log(scaling.active),
        "digits": math.log(scaling.digits),
        "dropped": math.log1p(scaling.dropped),
    }


def matrix_logs(matrix: Matrix) -> dict[str, float]:
    """Logarithms of the features of a matrix with adders, and whether its inputs are signed."""
    return {
        "one": 1.0,
        "adders": math.log(matrix.adders),
        "sharing": math.log(matrix.sharing),
        "common": math.log(matrix.common),
        "width_in": math.log(matrix.width_in),
        "width_out": math.log(matrix.width_out),
        "span": math.log1p(matrix.span),
        "digits": math.log(matrix.digits / matrix.columns),
        "columns": math.log(matrix.columns),
        "tree": math.log(matrix.tree),
        "deepest": math.log(matrix.deepest),
        "signed": float(matrix.signed),
    }


@cache
def coefficients(target: str = LUTS) -> Coefficients:
    """The table of this release for a target.

    Raises:
        HqcError: HQC434, there is none.
    """
    tables = json.loads(_TABLE.read_text(encoding="utf-8"))
    if target not in tables:
        raise reject(
            "HQC434",
            f"nothing predicts {target}",
            helps=(f"--quick is for {' and '.join(tables)}; without it, hqc estimate asks Yosys",),
        )
    record = tables[target]
    rows = tuple(tuple(row) for row in record.pop("requantisers"))
    first = tuple(record.pop("first"))
    return Coefficients(**record, requantisers=rows, first=(first[0], first[1]))


# --- networks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predicted:
    """A layer's figures, all its copies together.

    Attributes:
        name, kind, where: of the layer.
        size: predicted look-up tables or um2; an area has the flip-flops in it.
        flip_flops: predicted.
        bar: relative error that 90 % of such layers kept within, of what is not flip-flops.
    """

    name: str
    kind: str
    where: str
    size: float
    flip_flops: float
    bar: float

    def to_json(self, unit: str) -> dict[str, Any]:
        """Plain data."""
        named = {"name": self.name, "kind": self.kind, "where": self.where}
        figures = {unit: round(self.size), "flip_flops": round(self.flip_flops)}
        return {**named, **figures, f"{unit}_within": self.bar}


@dataclass(frozen=True)
class Prediction:
    """What a synthesis is expected to count.

    Attributes:
        target: fpga-xcup or asic-osu018.
        unit: of sizes, "lut" or "area_um2".
        clock_ns: the period that stages are made for.
        latency: clock cycles from input to output.
        rows: layers in the order they run.
        bar: relative error that `size` is taken to be within, see `Coefficients.total`.
        fitted: on what the coefficients were.
    """

    target: str
    unit: str
    clock_ns: float
    latency: int
    rows: tuple[Predicted, ...]
    bar: float
    fitted: Mapping[str, Any]

    @property
    def size(self) -> float:
        """The sum of the layers: look-up tables, or um2 with flip-flops."""
        return sum(row.size for row in self.rows)

    @property
    def flip_flops(self) -> float:
        """The sum."""
        return sum(row.flip_flops for row in self.rows)

    @property
    def most(self) -> float:
        """The size at the upper end of the error bar."""
        return self.size * (1 + self.bar)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures are and are not, one sentence each."""
        f, notes = self.fitted, []
        if self.target == AREA:
            notes.append("area is of logic and flip-flops, as cells: no wires, no clock tree")
            if self.clock_ns != CLOCK_NS:
                notes.append(f"logic is as it was mapped for {CLOCK_NS:g} ns; stages are not")
        return (
            f"predicted, not synthesised: fitted on {f['layers']} random layers by {f['tool']}",
            f"90 % of {f['held_out']} other layers were within {100 * f['within']:.0f} %; "
            f"this sum is taken to be within {100 * self.bar:.0f} %",
            *notes,
            "flip-flops and latency are rougher: they depend on where stages end",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "target": self.target,
            "predicted": True,
            "clock_ns": self.clock_ns,
            "latency": self.latency,
            "notes": list(self.notes),
            "total": {
                self.unit: round(self.size),
                f"{self.unit}_most": round(self.most),
                "flip_flops": round(self.flip_flops),
            },
            f"{self.unit}_within": self.bar,
            "fitted": dict(self.fitted),
            "layers": [row.to_json(self.unit) for row in self.rows],
        }


def quick_estimate(network: Network, target: str = LUTS, clock_ns: float = CLOCK_NS) -> Prediction:
    """Predict the figures of a network that the rtl backend would lay out.

    Args:
        network: see `hqc.backends.layers.network.read_network`.
        target: fpga-xcup or asic-osu018, which the coefficients are for.
        clock_ns: the clock period, for stages.

    Raises:
        HqcError: HQC434, another target; HQC401, a network that logic does not do.
    """
    table, found = coefficients(target), operation_counts(network)
    ends, rows = dict.fromkeys(network.inputs, 0.0), []
    for name, tally in found.items():
        layer = network.layer(name)
        stages = table.stages(tally, clock_ns)
        ends[name] = stages + max((ends[source] for source in layer.sources), default=0.0)
        rows.append(_row(layer, tally, table, stages))
    latency = 1 + int(max(ends[name] for name in network.outputs))
    bar = table.total
    return Prediction(target, table.unit, clock_ns, latency, tuple(rows), bar, table.fitted)


def _row(layer: Layer, tally: OperationCounts, table: Coefficients, stages: float) -> Predicted:
    kind = type(layer).__name__.lower()
    held = table.flip_flops(stages, tally.bits_in, tally.bits_out)
    size, bar = table.logic(tally) + table.register * held, table.bars.get(kind, 0.0)
    return Predicted(layer.name, kind, str(layer.where), size, held, bar)
