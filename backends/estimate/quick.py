"""Predict what an open synthesis will count, in milliseconds: no adders are built, none is asked.

Each layer's logic is counted (`hqc.backends.estimate.tally`); a small table of coefficients turns
counts into look-up tables. It was fitted by `tools/fit_cost.py` to what Yosys made of random
layers, and says on how many, with which tool, and how far off it was on layers it had not seen.

* The adders of a constant matrix are a power law of its features (`Matrix`): digits, how often
  pairs of them recur, how near columns are, widths.
* Everything else is a sum of counts, each with a factor that is not negative.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hqc.backends.estimate.counts import Scaling, Tally
from hqc.backends.estimate.features import Matrix
from hqc.backends.estimate.tally import tallies
from hqc.backends.layers import Layer, Network
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.diagnostics import reject

__all__ = ["Coefficients", "Predicted", "Prediction", "coefficients", "quick_estimate"]

TARGET = "fpga-xcup"
#: Inputs of a look-up table.
_LUT_INPUTS = 6
#: Inputs up to which a requantiser may be a table.
_TABLE_INPUTS = 12
_TABLE = Path(__file__).with_name("quick.json")


@dataclass(frozen=True)
class Coefficients:
    """The fitted table.

    Attributes:
        adders: exponents of a matrix's features, for the bits of its adders.
        merged: exponents of the features, for the look-up tables of a bit.
        factors: look-up tables of a count.
        scaled: exponents of a requantiser's features, for its look-up tables.
        depth: exponents of a matrix's features, for the picoseconds of a matrix's longest path.
        registers: flip-flops of a stage, by what is counted.
        bars: by kind of layer, the relative error that 90 % of the layers kept within.
        total: the relative error that whole networks are taken to keep within; chosen, not
            fitted, from the networks in docs/hardware.md.
        requantisers: look-up tables of one requantiser with a free scale: rows are widths of the
            accumulator from `first[0]` on, columns widths of the result from `first[1]` on.
        first: see there.
        fitted: on what: tool, flow, layers, versions.
    """

    adders: Mapping[str, float]
    merged: Mapping[str, float]
    factors: Mapping[str, float]
    scaled: Mapping[str, float]
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
        """Look-up tables of a matrix."""
        bits = self.adder_bits(matrix)
        return bits * power(self.merged, matrix_logs(matrix)) if matrix.adders else bits

    def path(self, matrix: Matrix) -> float:
        """Picoseconds through a matrix."""
        return power(self.depth, matrix_logs(matrix)) if matrix.adders else 0.0

    def scaling(self, scaling: Scaling) -> float:
        """Look-up tables of a requantiser: of its adders, or of a table where that is less."""
        adders = power(self.scaled, scaling_logs(scaling))
        if scaling.width_in > _TABLE_INPUTS:
            return adders
        return min(adders, _steps(scaling.width_in, round(scaling.width_out)))

    # --- layers -----------------------------------------------------------------------------

    def lut(self, tally: Tally) -> float:
        """Look-up tables of a layer."""
        sums = sum(copies * self.matrix(matrix) for matrix, copies in tally.matrices)
        sums += sum(x.elements * self.scaling(x) for x in tally.scalings)
        return sums + sum(self.factors[name] * n for name, n in tally.counts.items())

    def requantiser(self, width: float, bits: int) -> float:
        """Look-up tables of a requantiser: accumulator of so many bits, result of so many.

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
def coefficients() -> Coefficients:
    """The table of this release."""
    record = json.loads(_TABLE.read_text(encoding="utf-8"))
    rows = tuple(tuple(row) for row in record.pop("requantisers"))
    first = tuple(record.pop("first"))
    return Coefficients(**record, requantisers=rows, first=(first[0], first[1]))


# --- networks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Predicted:
    """A layer's figures, all its copies together.

    Attributes:
        name, kind, where: of the layer.
        lut, flip_flops: predicted.
        bar: relative error that 90 % of such layers kept within, of `lut`.
    """

    name: str
    kind: str
    where: str
    lut: float
    flip_flops: float
    bar: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        named = {"name": self.name, "kind": self.kind, "where": self.where}
        figures = {"lut": round(self.lut), "flip_flops": round(self.flip_flops)}
        return {**named, **figures, "lut_within": self.bar}


@dataclass(frozen=True)
class Prediction:
    """What a synthesis is expected to count.

    Attributes:
        target: fpga-xcup.
        clock_ns: the period that stages are made for.
        latency: clock cycles from input to output.
        rows: layers in the order they run.
        bar: relative error that `lut` is taken to be within, see `Coefficients.total`.
        fitted: on what the coefficients were.
    """

    target: str
    clock_ns: float
    latency: int
    rows: tuple[Predicted, ...]
    bar: float
    fitted: Mapping[str, Any]

    @property
    def lut(self) -> float:
        """The sum."""
        return sum(row.lut for row in self.rows)

    @property
    def flip_flops(self) -> float:
        """The sum."""
        return sum(row.flip_flops for row in self.rows)

    @property
    def most(self) -> float:
        """LUTs at the upper end of the error bar."""
        return self.lut * (1 + self.bar)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the figures are and are not, one sentence each."""
        f = self.fitted
        return (
            f"predicted, not synthesised: fitted on {f['layers']} random layers by {f['tool']}",
            f"90 % of {f['held_out']} other layers were within {100 * f['within']:.0f} %; "
            f"this sum is taken to be within {100 * self.bar:.0f} %",
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
                "lut": round(self.lut),
                "lut_most": round(self.most),
                "flip_flops": round(self.flip_flops),
            },
            "lut_within": self.bar,
            "fitted": dict(self.fitted),
            "layers": [row.to_json() for row in self.rows],
        }


def quick_estimate(network: Network, target: str = TARGET, clock_ns: float = 5.0) -> Prediction:
    """Predict the figures of a network that the rtl backend would lay out.

    Args:
        network: see `hqc.backends.network.read_network`.
        target: fpga-xcup is what the coefficients are for.
        clock_ns: the clock period, for stages.

    Raises:
        HqcError: HQC434, another target; HQC401, a network that logic does not do.
    """
    if target != TARGET:
        raise reject(
            "HQC434",
            f"nothing predicts {target}",
            helps=(f"--quick is for {TARGET}; without it, hqc estimate asks Yosys",),
        )
    table, found = coefficients(), tallies(network)
    cutoff = 1000 * cutoff_of(clock_ns)
    ends, rows = dict.fromkeys(network.inputs, 0.0), []
    for name, tally in found.items():
        layer = network.layer(name)
        path = tally.levels + max((table.path(m) for m, _ in tally.matrices), default=0.0)
        ends[name] = path + max((ends[source] for source in layer.sources), default=0.0)
        rows.append(_row(layer, tally, table, path / cutoff))
    latency = 1 + int(max(ends[name] for name in network.outputs) / cutoff)
    return Prediction(target, clock_ns, latency, tuple(rows), table.total, table.fitted)


def _row(layer: Layer, tally: Tally, table: Coefficients, stages: float) -> Predicted:
    kind = type(layer).__name__.lower()
    held = {"in": tally.bits_in, "out": tally.bits_out}
    flip_flops = stages * sum(table.registers[name] * bits for name, bits in held.items())
    bar = table.bars.get(kind, 0.0)
    return Predicted(layer.name, kind, str(layer.where), table.lut(tally), flip_flops, bar)
