"""The reference executor: a graph evaluated exactly, in integers and rationals. Slow and obvious.

Every exact tensor is an int64 array of codes together with the chain that turns codes into real
values, so scales, batch norm and biases stay rational until a quantiser decides a code. It runs
graphs of both states; what does not fit 62 bits is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import MERGES, after_cast, chain_step, is_pass_through
from hqc.analysis.dependence import computed_values, data_input
from hqc.analysis.float_tail import FloatTail
from hqc.analysis.linear import average, maximum, no_form, weighted_sum
from hqc.analysis.partition import code_boundaries, code_grid, computed_nodes, encode, host_tail
from hqc.analysis.rearrangements import (
    Rearrangement,
    is_rearrangement,
    rearrange,
    rearrangement,
    sample_shape,
)
from hqc.analysis.step_functions import StepFunction, step_function, wide_codes
from hqc.diagnostics import reject
from hqc.ir import Array, boundaries, location_of
from hqc.ir.operators import Quant, is_quantiser
from hqc.numerics.exact_tensor import (
    ExactTensor,
    column,
    common_unit,
    on_common_units,
    on_integers,
    straightened,
    without_offset,
)
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import INT64_BITS, Codes, round_shift

_OPERATORS: Mapping[str, Callable[[Node, ExactTensor], ExactTensor]] = {
    **dict.fromkeys(("MatMul", "Conv", "ConvTranspose"), weighted_sum),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool"), average),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), maximum),
}


class Reference:
    """Exact executor of one model."""

    def __init__(self, model: Model):
        """Prepare a model for running; the step functions of its quantisers are made on demand."""
        self._model = model
        self._inputs = [v for v in model.graph.inputs if not v.is_initializer()]
        self._computed = computed_values(model.graph)
        self._tail = host_tail(model)
        self._nodes = [n for n in computed_nodes(model) if n not in self._tail]
        self._steps: dict[Node, StepFunction] = {}
        self._moves: dict[Node, Rearrangement] = {}
        self._float_tail: FloatTail | None = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs (float32) of model inputs (N, ...) in the model's own units."""
        return self.finish(self.trace(inputs))

    def finish(self, trace: Mapping[Value, ExactTensor]) -> dict[str, Array]:
        """The host's float operators on a trace."""
        if self._float_tail is None:
            known = [str(v.name) for v in trace]
            nodes = tuple(n for n in computed_nodes(self._model) if n in self._tail)
            self._float_tail = FloatTail(self._model, nodes, known)
        needs = self._float_tail.needs
        entries = {str(v.name): t for v, t in trace.items() if v.name in needs}
        return self._float_tail({name: t.values() for name, t in entries.items()})

    def trace(self, inputs: Mapping[str, Array]) -> dict[Value, ExactTensor]:
        """Every exact tensor of the graph, in order.

        Raises:
            HqcError: HQC005, an input is missing or of a wrong shape; HQC204/205, a tensor does
                not fit 62 bits or has no exact form.
        """
        known: dict[Value, ExactTensor] = {}
        for value, boundary in zip(self._inputs, boundaries(self._inputs), strict=True):
            x = np.asarray(inputs.get(boundary.name, np.empty(0)), np.float64)
            if x.shape[1:] != boundary.shape or not np.all(np.isfinite(x)):
                raise reject(
                    "HQC005",
                    f"input {boundary.name} has shape {x.shape}, the model takes (N, "
                    f"{', '.join(map(str, boundary.shape))}) of finite numbers",
                )
            known[value] = ExactTensor(x, Chain())
        for node in self._nodes:
            known[node.outputs[0]] = self._evaluate(node, known)
        return known

    def _evaluate(self, node: Node, known: Mapping[Value, ExactTensor]) -> ExactTensor:
        computed = [v for v in node.inputs if v is not None and v in self._computed]
        if is_rearrangement(node):
            if node not in self._moves:
                self._moves[node] = rearrangement(node)
            found = self._moves[node]
            return _move(node, found, [known[v] for v in found.sources])
        if len(computed) == 2 and node.domain == "" and node.op_type in MERGES:
            return _merge(node, known[computed[0]], known[computed[1]])
        source = data_input(node, self._computed)
        if source is None:
            raise no_form(node)
        x = known[source]
        if is_quantiser(node):
            return self._quantise(node, x)
        if is_pass_through(node):
            return ExactTensor(x.base, after_cast(node, x.chain)) if x.is_real else x
        if node.domain == "" and (rule := _OPERATORS.get(node.op_type)) is not None:
            return rule(node, x)
        step = chain_step(node, self._computed)
        if step is None:
            raise no_form(node)
        return ExactTensor(x.base, x.chain.then(step))

    def _quantise(self, node: Node, x: ExactTensor) -> ExactTensor:
        coder = code_boundaries(node)
        chain = Chain().then(code_grid(node, coder))
        if x.is_real:
            return ExactTensor(encode((x.chain, node), x.base).astype(np.int64), chain)
        if x.is_wide:
            return ExactTensor(wide_codes(x.chain, coder, x.base), chain)
        codes = x.codes
        if Quant.matches(node) and (done := _shift_and_round(Quant.read(node), codes, x.chain)):
            return ExactTensor(done[0], chain)
        if node not in self._steps:
            channels = max(x.chain.channels, coder.channels)
            self._steps[node] = step_function(x.chain, coder, channels)
        return ExactTensor(self._steps[node](codes), chain)


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
    a = column([int(v * (1 << shift)) for v in affine.a], rank)
    b = column([int(v * (1 << shift)) for v in affine.b], rank)
    top = int(np.max(np.abs(codes), initial=0)) * int(np.max(np.abs(a))) + int(np.max(np.abs(b)))
    if top.bit_length() > INT64_BITS:
        return None
    limits = type_.limits
    rounded = round_shift(codes * a + b, shift - type_.fraction, quant.rounding)
    return (np.clip(rounded, limits.lo, limits.hi),)


def _merge(node: Node, x: ExactTensor, y: ExactTensor) -> ExactTensor:
    """Add, Sub or Mul of two exact tensors."""
    if x.is_real or y.is_real:
        raise no_form(node)
    x, y = (_full(node, straightened(t)) for t in (x, y))
    first, second = x.chain.affine, y.chain.affine
    if first is None or second is None:
        raise no_form(node)
    if node.op_type == "Mul":
        return _product(node, x, y)
    sign = -1 if node.op_type == "Sub" else 1
    bare = [ExactTensor(t.base, _factors(a)) for t, a in ((x, first), (y, second))]
    left, right, units = on_common_units(*bare)
    offsets = Affine((Fraction(1),), second.b).then(Affine.of(sign))
    step = Affine(units, first.add_offsets(offsets))
    return ExactTensor(np.asarray(left + sign * right), Chain().then(step))


def _full(node: Node, x: ExactTensor) -> ExactTensor:
    """A tensor broadcast to the shape of the node's output."""
    dims = sample_shape(node.outputs[0])
    if x.base.shape[1:] == dims:
        return x
    if x.base.ndim != len(dims) + 1 or x.chain.channels > 1:
        raise no_form(node)
    base: npt.NDArray[Any] = np.broadcast_to(x.base, (len(x.base), *dims))
    return ExactTensor(base, x.chain)


def _factors(affine: Affine) -> Chain:
    return Chain((Affine(affine.a, (Fraction(0),)),))


def _product(node: Node, x: ExactTensor, y: ExactTensor) -> ExactTensor:
    x_, y_ = without_offset(x), without_offset(y)
    if x_ is None or y_ is None:
        raise no_form(node)
    first, second = x_.chain.affine, y_.chain.affine
    assert first is not None
    assert second is not None
    if (x_.top * y_.top).bit_length() > INT64_BITS:
        raise reject("HQC204", "products beyond 62 bits", where=location_of(node))
    n = max(len(first.a), len(second.a))
    factors = tuple(first.at(c)[0] * second.at(c)[0] for c in range(n))
    base = np.asarray(x_.codes * y_.codes, np.int64)
    return ExactTensor(base, Chain().then(Affine(factors, (Fraction(0),))))


def _move(node: Node, found: Rearrangement, tensors: Sequence[ExactTensor]) -> ExactTensor:
    """Rearranged tensors; chains follow their channels."""
    if len(tensors) > 1 or found.fill or np.any(found.index < 0):
        return _assemble(node, found, tensors)
    (x,) = tensors
    chain: Chain | None = x.chain
    if x.chain.channels > 1:
        channels = found.channels()
        chain = None if channels is None else x.chain.joined(channels)
    if chain is None:
        return _assemble(node, found, tensors)
    return ExactTensor(rearrange(found, [x.base], 0), chain)


def _assemble(node: Node, found: Rearrangement, tensors: Sequence[ExactTensor]) -> ExactTensor:
    """Joined or padded tensors, on a step of which every part and the padding are multiples."""
    if any(t.is_real for t in tensors):
        if all(t.is_real and not t.chain.steps for t in tensors):
            return ExactTensor(rearrange(found, [t.base for t in tensors], found.fill), Chain())
        raise no_form(node)
    fill = Fraction(found.fill)
    if len({t.chain for t in tensors}) == 1 and tensors[0].chain.channels == 1:
        code = _code_of(fill, tensors[0].chain)
        if code is not None or not np.any(found.index < 0):
            bases = [t.base for t in tensors]
            return ExactTensor(rearrange(found, bases, code or 0), tensors[0].chain)
    whole = []
    for tensor in tensors:
        straight = straightened(tensor)
        affine = straight.chain.affine
        part = on_integers(straight, affine) if affine is not None else None
        if part is None:
            raise no_form(node)
        whole.append(part)
    units = [a for t in whole if (line := t.chain.affine) is not None for a in line.a]
    unit = common_unit((*set(units), *((fill,) if fill else ())))
    parts = []
    for tensor in whole:
        line = tensor.chain.affine
        assert line is not None
        factors = [int(a / unit) for a in line.a]
        if (tensor.top * max(factors)).bit_length() > INT64_BITS:
            raise reject("HQC204", f"{node.op_type} beyond 62 bits", where=location_of(node))
        parts.append(tensor.codes * column(factors, tensor.base.ndim))
    return ExactTensor(rearrange(found, parts, int(fill / unit)), Chain().then(Affine.of(unit)))


def _code_of(value: Fraction, chain: Chain) -> int | None:
    """The integer that an affine chain turns into a value, if there is one."""
    affine = chain.affine
    if affine is None or affine.a[0] == 0:
        return None
    code = (value - affine.b[0]) / affine.a[0]
    return int(code) if code.denominator == 1 else None
