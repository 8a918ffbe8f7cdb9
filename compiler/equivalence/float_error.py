"""Why a float32 executor differs: running error bounds, and distances to rounding ties.

For every tensor of the graph a bound E on |float32 result - exact value| is carried along, by the
standard model of floating point, fl(x op y) = (x op y)(1 + d), |d| <= u (Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., chapters 2 and 3). Operations whose exact result is
representable commit no error. A quantiser may then fall on the other side only where the exact
value lies within E of a code boundary: those are the ties. Anything else is unexplained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import chain_step, is_pass_through
from hqc.analysis.dependence import data_input
from hqc.analysis.partition import MAXIMA, code_boundaries, computed_nodes, host_tail
from hqc.analysis.rearrangements import is_rearrangement, rearrange, rearrangement
from hqc.analysis.step_functions import Coder, Thresholds
from hqc.equivalence.float_sums import SUMS, Sums, widest
from hqc.execution.reference import Reference
from hqc.ir import Array
from hqc.ir.operators import MultiThreshold, is_quantiser
from hqc.numerics.activations import Curve, Leaky
from hqc.numerics.exact_tensor import ExactTensor
from hqc.numerics.monotone_chain import Affine

Floats = npt.NDArray[np.float64]

#: Unit roundoffs of float32 and float64.
SINGLE, DOUBLE = 2.0**-24, 2.0**-53
#: Smallest positive float32: what underflow can take away.
SMALLEST = 2.0**-149


@dataclass(frozen=True)
class Deviation:
    """Why one sample differs: "tie", "rounding" or "unexplained", and in words."""

    kind: str
    reason: str


def deviations(
    model: Model, inputs: Mapping[str, Array], oracle: Mapping[str, Array], rows: Sequence[int]
) -> list[Deviation]:
    """Explain each of the given samples, in which a float32 oracle differs from the exact model.

    Args:
        model: the model, in any state.
        inputs: all samples (N, ...) by input name.
        oracle: every tensor that the float32 executor computed on them.
        rows: the samples that differ.
    """
    picked = {name: np.asarray(x)[rows] for name, x in inputs.items()}
    trace = Reference(model).trace(picked)
    found: dict[int, Deviation] = {}
    errors = _Errors(trace)
    for node in computed_nodes(model):
        value = node.outputs[0]
        if value not in trace:
            continue
        errors.add(node)
        if is_quantiser(node):
            mine = np.asarray(oracle[str(value.name)], np.float64)[rows]
            found = {**_flips(node, errors, mine), **found}  # the first quantiser decides
    for i in range(len(rows)):
        if i not in found:
            found[i] = _outputs(model, trace, errors, oracle, rows, i)
    return [found[i] for i in range(len(rows))]


def undecided(model: Model, inputs: Mapping[str, Array]) -> npt.NDArray[np.bool_]:
    """Samples (N,) in which any float32 executor, whatever its order of sums, may go either way.

    There the exact input of some quantiser lies within the float32 error of a code boundary.
    """
    trace = Reference(model).trace(inputs)
    errors = _Errors(trace)
    found = np.zeros(len(next(iter(inputs.values()))), bool)
    for node in computed_nodes(model):
        value = node.outputs[0]
        if value not in trace:
            continue
        errors.add(node)
        source = data_input(node, trace)
        if not is_quantiser(node) or source is None:
            continue
        coder, codes = code_boundaries(node), np.asarray(trace[value].base, np.int64)
        at = np.nonzero(np.ones(codes.shape, bool))
        channels = at[1] if coder.channels > 1 else np.zeros_like(at[0])
        k, x = codes[at], errors.values(source)[at]
        error = _error_of(coder, channels, x, errors.bound[source][at])
        for other, exists in ((k, k > coder.lo), (k + 1, k < coder.hi)):
            boundary = _boundaries(coder, np.clip(other, coder.lo + 1, coder.hi), channels)
            found[at[0][exists & (np.abs(x - boundary) <= error) & (error > 0)]] = True
    return found


def _flips(node: Node, errors: _Errors, mine: Floats) -> dict[int, Deviation]:
    """By row: why the float32 executor's codes differ at this quantiser, where they do."""
    source = data_input(node, errors.trace)
    assert source is not None
    coder = code_boundaries(node)
    tensor = errors.trace[node.outputs[0]]
    grid = tensor.chain.affine
    assert grid is not None
    exact_codes = np.asarray(tensor.base, np.int64)
    theirs = _codes(mine, grid)
    at = np.nonzero(theirs != exact_codes)
    if at[0].size == 0:
        return {}
    k, other = exact_codes[at], theirs[at]
    x = errors.values(source)[at]
    channels = at[1] if coder.channels > 1 else np.zeros_like(k)
    error = _error_of(coder, channels, x, errors.bound[source][at])
    boundary = _boundaries(coder, np.where(other > k, other, other + 1), channels)
    distance = np.abs(x - boundary)
    found: dict[int, Deviation] = {}
    for n in np.argsort(
        (distance <= error) & (error > 0), kind="stable"
    ):  # what is unexplained comes first
        text = (
            f"{node.name}: exact {float(x[n])!r} gives code {k[n]}, float32 gives {other[n]}; the "
            f"tie at {boundary[n]!r} is {distance[n]:.3g} away, float32 error to {error[n]:.3g}"
        )
        kind = "tie" if distance[n] <= error[n] and error[n] > 0 else "unexplained"
        found.setdefault(int(at[0][n]), Deviation(kind, text))
    return found


def _codes(values: Floats, grid: Affine) -> npt.NDArray[np.int64]:
    shape = (-1, *(1,) * (values.ndim - 2))
    a, b = (np.array([float(x) for x in part]) for part in (grid.a, grid.b))
    return np.asarray(np.rint((values - b.reshape(shape)) / a.reshape(shape)), np.int64)


def _error_of(coder: Coder, channels: npt.NDArray[np.int64], x: Floats, before: Floats) -> Floats:
    """The error of a quantiser's input and of its own arithmetic; 0 where float32 is exact.

    There a value on a boundary is no excuse: x is held as it is, and so are x / scale (by a power
    of two) and the sum with the zero point.
    """
    if isinstance(coder, Thresholds):
        return np.where((before == 0) & _representable(x), 0.0, before + 4 * SINGLE * np.abs(x))
    scale, zero = (
        np.resize(np.array([float(v) for v in part]), coder.channels)[channels]
        for part in (coder.scale, coder.zero_point)
    )
    mantissa, _ = np.frexp(scale)
    code = x / scale
    exact = (before == 0) & (mantissa == 0.5) & _representable(x) & _representable(code + zero)
    exact &= (code + zero) - zero == code  # a tiny x is lost in the sum, in float64 as well
    exact &= _representable(np.abs(code + zero) + 0.5)
    exact &= np.abs(code) + np.abs(zero) < 0.25 / SINGLE  # and so is what adds a half to round
    size = np.abs(x) + scale * (np.abs(zero) + 0.5)
    return np.where(exact, 0.0, before + (4 * SINGLE + 1e-14) * size + SMALLEST)


def _boundaries(
    coder: Coder, codes: npt.NDArray[np.int64], channels: npt.NDArray[np.int64]
) -> Floats:
    pairs = list(zip(codes.tolist(), channels.tolist(), strict=True))
    table = {(k, c): float(coder.bound(k, c).value) for k, c in set(pairs)}
    return np.array([table[pair] for pair in pairs])


def _outputs(
    model: Model,
    trace: Mapping[Value, ExactTensor],
    errors: _Errors,
    oracle: Mapping[str, Array],
    rows: Sequence[int],
    row: int,
) -> Deviation:
    """No quantiser differs: the values that leave the exact part may, within their bound."""
    tail = host_tail(model)
    for value, tensor in trace.items():
        leaves = value.is_graph_output() or any(use.node in tail for use in value.uses())
        if not leaves:
            continue
        mine = np.asarray(oracle[str(value.name)], np.float64)[rows[row]]
        gap = np.abs(mine - tensor.values()[row])
        bound = errors.bound[value][row] + SINGLE * np.abs(mine)
        if np.any(gap > bound):
            at = tuple(int(i) for i in np.argwhere(gap > bound)[0])
            return Deviation(
                "unexplained",
                f"{value.name}{list(at)}: {gap[at]:.3g} apart, float32 error up to {bound[at]:.3g}",
            )
    return Deviation("rounding", "outputs without a quantiser, within float32 error")


class _Errors:
    """Bounds on the float32 error of every value, built node by node."""

    def __init__(self, trace: Mapping[Value, ExactTensor]):
        self.trace = trace
        self.bound: dict[Value, Floats] = {}
        self._values: dict[Value, Floats] = {}
        for value, tensor in trace.items():
            if value.producer() is None:
                self.bound[value] = np.zeros(tensor.base.shape)

    def values(self, value: Value) -> Floats:
        """The exact tensor in float64."""
        if value not in self._values:
            self._values[value] = self.trace[value].values()
        return self._values[value]

    def add(self, node: Node) -> None:
        """Bound the output of one node."""
        value = node.outputs[0]
        exact = self.values(value)
        unit = DOUBLE if value.dtype == onnx_ir.DataType.DOUBLE else SINGLE
        known = [v for v in node.inputs if v is not None and v in self.bound]
        propagated: Floats
        if is_quantiser(node):
            propagated = np.zeros(exact.shape)
            if MultiThreshold.matches(node):  # the scaled count rounds before the bias is added
                scaled = exact - MultiThreshold.read(node).out_bias
                propagated = np.where(_representable(scaled), 0.0, SINGLE * np.abs(scaled))
        elif node.domain == "" and node.op_type in SUMS:
            sums = Sums(self.values(known[0]), self.bound[known[0]], unit)
            self.bound[value] = sums.bound_of(node)
            return
        elif is_rearrangement(node):
            found = rearrangement(node)
            propagated = rearrange(found, [self.bound[v] for v in found.sources], 0.0)
        elif node.domain == "" and node.op_type in MAXIMA:
            propagated = widest(node, self.bound[known[0]])
        elif len([v for v in node.inputs if v in self.bound]) == 2:
            propagated = self._two(node, *(v for v in node.inputs if v is not None))
        elif is_pass_through(node):
            propagated = self.bound[known[0]]
        else:
            propagated = self._step(node, known[0], exact, unit)
        rounded = unit * np.abs(exact) + SMALLEST
        self.bound[value] = propagated + np.where(_representable(exact), 0.0, rounded)
        self.bound[value] += np.where(propagated > 0, unit * propagated, 0.0)

    def _step(self, node: Node, source: Value, exact: Floats, unit: float) -> Floats:
        step = chain_step(node)
        before = self.bound[source]
        if isinstance(step, Curve):  # slopes up to 1; the library's own error is a few units
            return before + 16 * unit
        if isinstance(step, Leaky):
            steepest = max(1.0, float(max(step.slopes)))
            return before * steepest + unit * np.abs(exact)
        if not isinstance(step, Affine):
            return before
        shape = (-1, *(1,) * (exact.ndim - 2))
        a = np.abs([float(x) for x in step.a]).reshape(shape)
        b = np.abs([float(x) for x in step.b]).reshape(shape)
        extra: Floats = np.zeros(exact.shape)
        if node.op_type == "BatchNormalization":
            # mean, variance, division and root round, too: a handful of roundings of each part
            mean = np.abs(np.asarray(node.inputs[3].const_value.numpy(), np.float64))  # type: ignore[union-attr]
            size = np.abs(self.values(source)) + mean.reshape(shape)
            extra = 8 * unit * (a * size + b + a * mean.reshape(shape))
        else:
            divides = node.op_type == "Div"
            numbers = (*(1 / x if divides else x for x in step.a), *step.b)
            if divides or not all(_is_held(x, unit) for x in numbers):
                extra = 2 * unit * (a * np.abs(self.values(source)) + b)
            if all(_is_held(x, unit) for x in numbers):  # then a representable quotient is exact
                extra = np.where(_representable(exact) & (before == 0), 0.0, extra)
            offset = np.asarray([float(x) for x in step.b]).reshape(shape)
            factor = np.asarray([float(x) for x in step.a]).reshape(shape)
            lost = exact - offset != factor * self.values(source)  # beside a much larger number
            extra = np.where(lost, np.maximum(extra, 2 * unit * np.abs(exact)), extra)
        return a * before + extra

    def _two(self, node: Node, x: Value, y: Value) -> Floats:
        """The errors of two computed operands, in their result."""
        if node.op_type != "Mul":
            return self.bound[x] + self.bound[y]
        a, b = np.abs(self.values(x)), np.abs(self.values(y))
        return a * self.bound[y] + b * self.bound[x] + self.bound[x] * self.bound[y]


def _representable(x: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(x.astype(np.float32).astype(np.float64) == x)


def _is_held(x: Fraction, unit: float) -> bool:
    """Whether the float type of this unit roundoff holds a number as it is."""
    number = float(x) if unit == DOUBLE else float(np.float32(float(x)))
    return number == x
