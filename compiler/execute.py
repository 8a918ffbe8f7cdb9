"""The reference executor: a graph evaluated exactly, in integers and rationals. Slow and obvious.

Every exact tensor is an int64 array of codes together with the chain that turns codes into real
values, so scales, batch norm and biases stay rational until a quantiser decides a code. It runs
graphs of both states; what does not fit 62 bits is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from onnx_ir import Model, Node, Value

from hqc.chains import Affine, Chain, Rectifier, Single
from hqc.coders import Quantiser, StepFunction, step_function
from hqc.diagnostics import reject
from hqc.ir import Array, boundaries, location_of
from hqc.operators import MultiThreshold, Quant, is_quantiser
from hqc.partition import FloatTail, coder_of, computed_nodes, encode, host_tail
from hqc.semantics import (
    after_cast,
    chain_step,
    data_input,
    exact_values_known,
    grid_constant,
    is_pass_through,
)
from hqc.types import INT64_BITS, Codes, round_shift


@dataclass(frozen=True)
class Exact:
    """A tensor: `chain(base)`, base int64 codes, or float64 while no quantiser has been met."""

    base: npt.NDArray[np.int64] | npt.NDArray[np.float64]
    chain: Chain

    @property
    def is_real(self) -> bool:
        """Whether the base is still the model's float input."""
        return bool(self.base.dtype == np.float64)

    def values(self) -> npt.NDArray[np.float64]:
        """The tensor in float64: one product and one sum per step, channels on axis 1."""
        x = np.asarray(self.base, np.float64)
        for step in self.chain.steps:
            if isinstance(step, Rectifier):
                x = np.maximum(x, 0.0)
            elif isinstance(step, Single):
                x = x.astype(np.float32).astype(np.float64)
            else:
                for op, numbers in step.in_floats:
                    column = _column(numbers, x.ndim)
                    x = x + column if op == "Add" else x * column
        return x


def _column(coefficients: tuple[Fraction, ...], rank: int) -> npt.NDArray[np.float64]:
    column = np.array([float(c) for c in coefficients], np.float64)
    return column.reshape(()) if column.size == 1 else column.reshape(-1, *(1,) * (rank - 2))


class Reference:
    """Exact executor of one model."""

    def __init__(self, model: Model):
        """Prepare a model for running; the step functions of its quantisers are made on demand."""
        self._model = model
        self._inputs = [v for v in model.graph.inputs if not v.is_initializer()]
        self._tail = host_tail(model)
        self._nodes = [n for n in computed_nodes(model) if n not in self._tail]
        self._steps: dict[Node, StepFunction] = {}
        self._float_tail: FloatTail | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs (float32) of model inputs (N, ...) in the model's own units."""
        return self.finish(self.trace(inputs))

    def finish(self, trace: Mapping[Value, Exact]) -> dict[str, Array]:
        """The host's float operators on a trace."""
        if self._float_tail is None:
            entries = [str(v.name) for v in trace]
            nodes = tuple(n for n in computed_nodes(self._model) if n in self._tail)
            self._float_tail = FloatTail(self._model, nodes, entries)
        return self._float_tail({str(v.name): t.values() for v, t in trace.items()})

    def trace(self, inputs: Mapping[str, Array]) -> dict[Value, Exact]:
        """Every exact tensor of the graph, in order.

        Raises:
            HqcError: HQC005, an input is missing or of a wrong shape; HQC204/205, a tensor does
                not fit 62 bits or has no exact form.
        """
        known: dict[Value, Exact] = {}
        for value, boundary in zip(self._inputs, boundaries(self._inputs), strict=True):
            x = np.asarray(inputs.get(boundary.name, np.empty(0)), np.float64)
            if x.shape[1:] != boundary.shape or not np.all(np.isfinite(x)):
                raise reject(
                    "HQC005",
                    f"input {boundary.name} has shape {x.shape}, the model takes (N, "
                    f"{', '.join(map(str, boundary.shape))}) of finite numbers",
                )
            known[value] = Exact(x, Chain())
        for node in self._nodes:
            known[node.outputs[0]] = self._evaluate(node, known)
        return known

    def _evaluate(self, node: Node, known: Mapping[Value, Exact]) -> Exact:
        if node.op_type == "MatMul" and node.domain == "":
            return _matmul(node, known)
        computed = [v for v in node.inputs if v is not None and not exact_values_known(v)]
        if len(computed) == 2 and node.op_type == "Add":
            return _merge(node, known[computed[0]], known[computed[1]])
        source = data_input(node)
        if source is None:
            raise _no_form(node)
        x = known[source]
        if is_quantiser(node):
            return self._quantise(node, x)
        if is_pass_through(node):
            moved = _reshape(node, x)
            return Exact(moved.base, after_cast(node, moved.chain)) if x.is_real else moved
        step = chain_step(node)
        if step is None:
            raise _no_form(node)
        return Exact(x.base, x.chain.then(step))

    def _quantise(self, node: Node, x: Exact) -> Exact:
        coder = coder_of(node)
        if isinstance(coder, Quantiser):
            grid = coder.grid()
        else:
            view = MultiThreshold.read(node)
            grid = Affine.of(Fraction(view.out_scale), Fraction(view.out_bias))
        chain = Chain().then(grid)
        if x.is_real:
            return Exact(encode((x.chain, node), x.base).astype(np.int64), chain)
        codes = x.base.astype(np.int64, copy=False)
        if Quant.matches(node) and (done := _shift_and_round(Quant.read(node), codes, x.chain)):
            return Exact(done[0], chain)
        if node not in self._steps:
            channels = max(x.chain.channels, coder.channels)
            self._steps[node] = step_function(x.chain, coder, channels)
        return Exact(self._steps[node](codes), chain)


def _shift_and_round(quant: Quant, codes: Codes, chain: Chain) -> tuple[Codes] | None:
    """Integer arithmetic for dyadic affine chains before power-of-two quantisers, else None."""
    affine, type_ = chain.affine, quant.fixed_type
    if affine is None or type_ is None:
        return None
    parts = (*affine.a, *affine.b)
    if any(f.denominator & (f.denominator - 1) for f in parts):
        return None
    shift = max(f.denominator.bit_length() - 1 for f in parts)
    if max(abs(f.numerator) << shift for f in parts).bit_length() > INT64_BITS:
        return None
    rank = codes.ndim
    a = _integers(affine.a, shift, rank)
    b = _integers(affine.b, shift, rank)
    top = int(np.max(np.abs(codes), initial=0)) * int(np.max(np.abs(a))) + int(np.max(np.abs(b)))
    if top.bit_length() > INT64_BITS:
        return None
    limits = type_.limits
    rounded = round_shift(codes * a + b, shift - type_.fraction, quant.rounding)
    return (np.clip(rounded, limits.lo, limits.hi),)


def _integers(values: tuple[Fraction, ...], shift: int, rank: int) -> Codes:
    column = np.array([int(v * (1 << shift)) for v in values], np.int64)
    return column if column.size == 1 else column.reshape(-1, *(1,) * (rank - 2))


def _matmul(node: Node, known: Mapping[Value, Exact]) -> Exact:
    data, weight = node.inputs
    grid = grid_constant(weight)
    if grid is None or data is None or data not in known:
        raise reject(
            "HQC103",
            f"the weights of {node.name} are not quantised",
            where=location_of(node),
            helps=("quantise them in training, or pass --quantize 8",),
        )
    x = _rectified(known[data])
    affine = x.chain.affine
    if x.is_real or x.base.ndim != 2 or grid.codes.ndim != 2:
        raise _no_form(node)
    if affine is None or not affine.has_one_factor:
        raise _no_form(node)
    codes, scales = column_units(grid.codes, grid.scale)
    top = int(np.max(np.abs(x.base), initial=0)) * int(np.max(np.abs(codes).sum(axis=0), initial=0))
    if top.bit_length() > INT64_BITS:
        raise reject("HQC204", "sums beyond 62 bits", where=location_of(node))
    step = Affine(tuple(affine.a[0] * s for s in scales), offset_sums(codes, scales, affine))
    base = _integer_matmul(x.base.astype(np.int64, copy=False), codes, top)
    return Exact(base, Chain().then(step))


def offset_sums(codes: Codes, scales: Sequence[Fraction], affine: Affine) -> tuple[Fraction, ...]:
    """What the offsets of an input (one, or one per channel) add to each output of a layer."""
    if len(set(affine.b)) == 1:
        return tuple(
            affine.b[0] * int(n) * s for n, s in zip(codes.sum(axis=0), scales, strict=True)
        )
    sums = codes.T.astype(object) @ np.array(affine.b, object)
    return tuple(Fraction(n) * s for n, s in zip(sums, scales, strict=True))


def _integer_matmul(x: Codes, w: Codes, top: int) -> Codes:
    if top < 2**53:  # float64 products and sums of such integers are exact, and BLAS is quick
        return np.asarray(x.astype(np.float64) @ w.astype(np.float64)).astype(np.int64)
    return x @ w


def column_units(
    codes: Codes, scale: npt.NDArray[np.object_]
) -> tuple[Codes, tuple[Fraction, ...]]:
    """Weights (n_in, n_out) as integers with one scale per output column.

    Raises:
        HqcError: HQC205, scales along the input axis have no common unit of 20 bits.
    """
    full = np.broadcast_to(scale, codes.shape)
    if codes.shape[0] == 0 or all(len(set(column)) == 1 for column in full.T):
        return codes, tuple(full[0])
    out = np.empty_like(codes)
    units = []
    for k in range(codes.shape[1]):
        unit = common_unit(tuple(full[:, k]))
        factors = [s / unit for s in full[:, k]]
        if max(factors) > 2**20:
            raise reject("HQC205", "weight scales along the input axis have no common unit")
        out[:, k] = codes[:, k] * np.array([int(f) for f in factors], np.int64)
        units.append(unit)
    return out, tuple(units)


def common_unit(scales: tuple[Fraction, ...]) -> Fraction:
    """The largest rational of which all scales are integer multiples."""
    numerator = int(np.gcd.reduce(np.array([s.numerator for s in scales], object)))
    denominator = int(np.lcm.reduce(np.array([s.denominator for s in scales], object)))
    return Fraction(numerator, denominator)


def _rectified(x: Exact) -> Exact:
    """The same tensor with its rectifiers computed, where one scale holds for all channels."""
    while not x.is_real and x.chain.affine is None:
        steps = x.chain.steps
        at = 1 if isinstance(steps[0], Affine) else 0
        affine = steps[0] if isinstance(steps[0], Affine) else Affine.of()
        a, b = affine.at(0)
        if not affine.is_scalar or a == 0:
            return x
        unit = common_unit((abs(a), abs(b)))
        factor, offset = int(a / unit), int(b / unit)
        top = int(np.max(np.abs(x.base), initial=0)) * abs(factor) + abs(offset)
        if top.bit_length() > INT64_BITS:
            return x
        base = np.asarray(np.maximum(x.base * factor + offset, 0), np.int64)
        chain = Chain().then(Affine.of(unit))
        for step in steps[at + 1 :]:
            chain = chain.then(step)
        x = Exact(base, chain)
    return x


def _merge(node: Node, x: Exact, y: Exact) -> Exact:
    x, y = _rectified(x), _rectified(y)
    first, second = x.chain.affine, y.chain.affine
    if first is None or second is None:
        raise _no_form(node)
    if not first.has_one_factor or not second.has_one_factor:
        raise _no_form(node)
    a, c = first.a[0], second.a[0]
    unit = common_unit((abs(a), abs(c)))
    left, right = int(a / unit), int(c / unit)
    top = max(int(np.max(np.abs(t.base), initial=0)) for t in (x, y)) * (abs(left) + abs(right))
    if top.bit_length() > INT64_BITS or x.is_real or y.is_real:
        raise reject("HQC204", "sums beyond 62 bits", where=location_of(node))
    base = np.asarray(x.base * left + y.base * right, np.int64)
    return Exact(base, Chain().then(Affine((unit,), first.add_offsets(second))))


def _reshape(node: Node, x: Exact) -> Exact:
    shape = node.outputs[0].shape
    dims = tuple(d for d in (shape or ())[1:])
    if x.base.shape[1:] == dims or node.op_type in ("Identity", "Cast", "Dropout"):
        return x
    if x.chain.channels > 1 or not all(isinstance(d, int) for d in dims):
        raise _no_form(node)
    return Exact(x.base.reshape(-1, *dims), x.chain)


def _no_form(node: Node) -> Exception:
    return reject(
        "HQC205",
        f"{node.op_type} has no exact integer form here",
        where=location_of(node),
        notes=("it stands between quantisers, so it must be exact",),
        helps=("put a quantiser before it, or move it behind the last layer",),
    )
