"""LUTs and area as budgets: what the rtl backend's logic is predicted to take, by bit widths.

A layer's matrix is quantised at each candidate width and counted (`hqc.backends.estimate.quick`):
its real signed digits, its columns, once per position of a convolution. What enters sets the width
of its sums, and so does the matrix the width of what is requantised; a requantiser with a free
scale costs what such ones cost on average, one with a power of two a rounding and a clamp.

A requantiser depends on three knobs: weights, what enters, and what leaves. That layers of 2 bits
leave inputs unread, with all that makes them, is not counted: training may read them again.

An area has the flip-flops of pipeline stages in it, as many as a clock of 5 ns takes; those of
pools are not among them.

A budget is to be kept by the trained network, whose weights and scales are not these: each entry
is the prediction with `MARGIN` on top.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar

import numpy as np
import torch

from hqc.backends.estimate.counts import Bounds, OperationCounts
from hqc.backends.estimate.features import Matrix as Features
from hqc.backends.estimate.features import bits_of, matrix_features
from hqc.backends.estimate.quick import AREA, CLOCK_NS, LUTS, Coefficients, coefficients
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.codesign.costs.logic import Logic, Matrix, Pool, Requantisers
from hqc.codesign.costs.providers import Network
from hqc.codesign.costs.tables import Shape, Table, candidates
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.torch import WeightQuant
from hqc.ir import Array
from hqc.numerics.types import FixedType, Overflow, Rounding

#: On top of each prediction: its own error, and what training changes: of some thirty trained jet
#: taggers none had more than 19 % above the prediction.
MARGIN = 0.25
#: Bits of an accumulator above the largest value that a trained scale represents.
_SPARE = 2
#: Spread of the weights that stand in for those of a layer that are not known, of their largest.
_SPREAD = 3.0


@dataclass(frozen=True)
class PredictedCost:
    """What a trained network is predicted to take.

    Attributes:
        scheme: how weights and activations are quantised.
        margin: on top of each prediction.
    """

    scheme: Scheme = field(default_factory=Scheme)
    margin: float = MARGIN
    #: What the coefficients are for.
    target: ClassVar[str]

    def at(self, scheme: Scheme) -> PredictedCost:
        """The same of a network that is quantised in another way."""
        return replace(self, scheme=scheme)

    def __call__(self, net: Network) -> Table:
        """The table.

        Raises:
            HqcError: HQC612, a knob without candidates; HQC603, the model has no quantised form.
        """
        return _Tables(net, self.scheme, 1 + self.margin, coefficients(self.target)).whole()


class LutCost(PredictedCost):
    """LUTs of the trained network's logic."""

    target = LUTS


class AreaCost(PredictedCost):
    """Area of the trained network's cells in um2, logic and flip-flops: osu018, at 5 ns."""

    target = AREA


#: Costs that are predicted, by the name of their budget.
PREDICTED: Mapping[str, type[PredictedCost]] = {"lut": LutCost, "area": AreaCost}
#: A size, LUTs or um2, from the widths of some knobs.
Term = Callable[..., float]


class _Tables:
    def __init__(self, net: Network, scheme: Scheme, factor: float, fit: Coefficients) -> None:
        self.net, self.scheme, self.factor, self.fit = net, scheme, factor, fit
        self.logic = net.logic() if net.logic is not None else Logic()
        self.shapes = {shape.name: shape for shape in net.shapes}
        self.rows = self.logic.requantisers or _rows_of_chain(net)
        self.readers = {name: row.elements for row in self.rows for name in row.readers}
        self.features = cache(self._features)

    def whole(self) -> Table:
        """Matrices, requantisers and pools."""
        table = Table()
        for shape in self.net.shapes:
            table = table + self._matrix(shape)
        for row in self.rows:
            for source in row.sources:
                table = table + self._requantisers(row, source)
        for pool in self.logic.pools:
            table = table + self._pool(pool)
        return table

    # --- widths -----------------------------------------------------------------------------

    def _entering(self, layer: str) -> str | int:
        """The knob of what enters a layer, or its width."""
        return self.net.inputs[layer]

    def _width(self, layer: str, value: int) -> int:
        """Bits that enter a layer at a width of the knob that says it."""
        return value + (0 if isinstance(self._entering(layer), int) else self.net.headroom)

    def _table(self, knobs: tuple[str | int, ...], term: Term) -> Table:
        """A term as a table over its knobs; numbers among these are widths that are given."""
        free = tuple(dict.fromkeys(knob for knob in knobs if isinstance(knob, str)))
        grid = {}
        for chosen in itertools.product(*(candidates(self.net.widths, knob) for knob in free)):
            held = dict(zip(free, chosen, strict=True))
            grid[chosen] = self.factor * term(
                *(held[k] if isinstance(k, str) else k for k in knobs)
            )
        if not free:
            return Table(constant=grid[()])
        if len(free) == 1:
            return Table({free[0]: {width: cost for (width,), cost in grid.items()}})
        return Table(joint={free: grid})

    # --- layers -----------------------------------------------------------------------------

    def _matrix(self, shape: Shape) -> Table:
        name = shape.name

        def size(weights: int, entering: int) -> float:
            width = self._width(name, entering)
            found = self._at(name, weights, width)
            sums = sum(self.fit.matrix(m) for m in found.matrices)
            logic = shape.positions * (sums + self._offsets(name, found.width))
            return logic + self._registers(shape, found, width)

        return self._table((name, self._entering(name)), size)

    def _registers(self, shape: Shape, found: _Sums, entering: int) -> float:
        """Size of a layer's flip-flops.

        Of a layer that reads no requantisers each position counts its own window, so there are
        never fewer than predicted.
        """
        stages = max((self.fit.path(m) for m in found.matrices), default=0.0) / _CUTOFF
        elements = self.readers.get(shape.name, shape.inputs * shape.positions)
        results = shape.outputs * shape.positions
        held = self.fit.flip_flops(stages, elements * entering, results * found.width)
        return self.fit.register * held

    def _offsets(self, name: str, width: float) -> float:
        """Adders of biases; with free scales they are part of the requantisers."""
        held = self.logic.matrices.get(name)
        if not self.scheme.power_of_two or held is None or not held.needs_bias:
            return 0.0
        return self.fit.factors["offset"] * self.shapes[name].outputs * width

    def _requantisers(self, row: Requantisers, source: str) -> Table:
        if not row.readers:
            return Table()
        reader = row.readers[0]
        signed = not row.positive or self.scheme.mode != "asymmetric"

        def size(weights: int, entering: int, leaving: int) -> float:
            width = self._at(source, weights, self._width(source, entering)).width
            bits = self._width(reader, leaving)
            return row.elements * self._requantiser(width, bits, signed)

        def again(leaving: int) -> float:
            bits = self._width(reader, leaving)
            return row.elements * self._requantiser(bits + 1.0, bits, signed)

        added = Table()
        if len(row.sources) > 1:  # the sum behind the requantisers
            leaving = (self._entering(reader),)
            each = self.fit.factors["adder"] * row.elements / len(row.sources)
            added = self._table(leaving, lambda b: each * (self._width(reader, b) + 1))
        if not source:
            return added + self._table((self._entering(reader),), again)
        knobs = source, self._entering(source), self._entering(reader)
        return added + self._table(knobs, size)

    def _requantiser(self, width: float, bits: int, signed: bool) -> float:
        """Size of one."""
        if not self.scheme.power_of_two:
            return self.fit.requantiser(width, bits)
        tally, whole = OperationCounts(), round(width)
        lo, hi = (np.array([end]) for end in (-(1 << (whole - 1)), (1 << (whole - 1)) - 1))
        drops = max(0, whole - 1 - _SPARE - bits)
        type_ = FixedType(signed, bits, bits, Rounding.ROUND, Overflow.SAT)
        tally.assign(Bounds(lo, hi, drops), type_)
        tally.bits_in, tally.bits_out = whole, bits
        return self.fit.whole(tally)

    def _pool(self, pool: Pool) -> Table:
        if not pool.readers:
            return Table()
        reader = pool.readers[0]

        def size(leaving: int) -> float:
            bits, factors = self._width(reader, leaving), self.fit.factors
            if not pool.average:
                return pool.joined * (factors["larger"] * bits + factors["longer"] * (bits - 2))
            taps = 1 + pool.joined / max(1, pool.results)
            sums = pool.joined * factors["adder"] * (bits + 1)
            return sums + pool.results * self.fit.requantiser(bits + np.log2(taps), bits)

        return self._table((self._entering(reader),), size)

    # --- matrices at a width ----------------------------------------------------------------

    def _at(self, name: str, weights: int, entering: int) -> _Sums:
        """The matrix at these widths: wider inputs make its sums wider by as much."""
        found, more = self.features(name, weights), entering - _ENTERING
        return _Sums(
            tuple(
                replace(m, width_in=m.width_in + more, width_out=m.width_out + more)
                if m.adders
                else m
                for m in found.matrices
            ),
            max(1.0, found.width + more),
        )

    def _features(self, name: str, bits: int) -> _Sums:
        """Counts of a layer's matrices at a width of the weights, with `_ENTERING` bits in."""
        held = self.logic.matrices.get(name)
        parts = _stand_in(self.shapes[name], bits) if held is None else self._parts(held, bits)
        positive = held is None or (held.positive and self.scheme.mode == "asymmetric")
        low = 0 if positive else -(1 << (_ENTERING - 1))
        high = low + (1 << _ENTERING) - 1
        found, widths = [], []
        for part in parts:
            lo, hi = (np.full(len(part), end, np.int64) for end in (low, high))
            found.append(matrix_features(part, lo, hi))
            up, down = np.maximum(part, 0), np.minimum(part, 0)
            widths.append(bits_of(lo @ up + hi @ down, hi @ up + lo @ down))
        return _Sums(tuple(found), float(np.concatenate(widths).mean()))

    def _parts(self, held: Matrix, bits: int) -> list[Array]:
        quant = WeightQuant(
            bits, per_channel=self.scheme.per_channel, power_of_two=self.scheme.power_of_two
        )
        with torch.no_grad():
            scale, _ = quant.parameters_of(held.weight)
            codes = torch.round(quant(held.weight) / scale).to(torch.int64).numpy()
        return held.parts(codes)


@dataclass(frozen=True)
class _Sums:
    """Matrices of a layer, and the mean width of their results."""

    matrices: tuple[Features, ...]
    width: float


#: Picoseconds of a pipeline stage.
_CUTOFF = 1000 * cutoff_of(CLOCK_NS)
#: Width of inputs that matrices are counted with, before they are moved to the real one.
_ENTERING = 8


def _stand_in(shape: Shape, bits: int) -> list[Array]:
    """Weights of a layer of which only the shape is known: of normal spread, the pruned ones 0."""
    rng = np.random.default_rng(shape.weights)
    most = (1 << (bits - 1)) - 1
    codes = np.rint(rng.normal(0, most / _SPREAD, (shape.inputs, shape.outputs)))
    codes = np.clip(codes, -most, most).astype(np.int64)
    codes[rng.random(codes.shape) < shape.pruned / shape.weights] = 0
    return [codes]


def _rows_of_chain(net: Network) -> tuple[Requantisers, ...]:
    """Requantisers between layers of which only shapes are known: each feeds the next."""
    pairs: Mapping[str, str] = dict(
        zip([s.name for s in net.shapes], [s.name for s in net.shapes[1:]], strict=False)
    )
    return tuple(
        Requantisers((shape.name,), (pairs[shape.name],), shape.outputs * shape.positions, True)
        for shape in net.shapes
        if shape.name in pairs
    )
