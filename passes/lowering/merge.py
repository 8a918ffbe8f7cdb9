"""Lowering of operators on several tensors: sums, products, joins, and rearrangements."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from hqc.analysis.rearrangements import Rearrangement, data_sources, rearrangement, sample_shape
from hqc.diagnostics import HqcError, reject
from hqc.ir import location_of
from hqc.ir.operators import is_power_of_two
from hqc.numerics.exact_tensor import common_unit, common_units
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import DOUBLE_BITS, SINGLE_BITS
from hqc.passes.lowering.integer_builder import Form, IntegerBuilder
from hqc.passes.lowering.rectifiers import from_zero, straighten

Factors = tuple[Fraction, ...]

#: Channels are brought to one unit by whole factors up to this.
MAX_FACTOR = 256


def lower_merge(emitter: IntegerBuilder, node: Node, x: Form, y: Form) -> Form:
    """Add, Sub or Mul of two computed tensors.

    Raises:
        HqcError: HQC204/205, scales that no common step of 53-bit sums holds.
    """
    x, y = (broadcast(emitter, node, straighten(emitter, node, form)) for form in (x, y))
    first, second = x.affine, y.affine
    if node.op_type == "Mul":
        return _product(emitter, node, x, y)
    if node.op_type == "Sub":
        second = second.then(Affine.of(-1))
    lefts, rights, units = on_common_units(first.a, second.a)
    values = [
        emitter.scaled(form.value, factors, "_rescale", location_of(node))
        for form, factors in ((x, lefts), (y, rights))
    ]
    one, two = (emitter.ranges[v].joined for v in values)
    bits = (one + two).magnitude_bits
    if bits > DOUBLE_BITS:
        raise _too_wide(node, bits)
    values = one_kind(emitter, [emitter.widen(v, bits) for v in values])
    new = emitter.node("Add", values, node.outputs[0], "")
    total = Affine(units, first.add_offsets(second))
    return Form(emitter.add(new), Chain().then(total))


def _too_wide(node: Node, bits: int) -> HqcError:
    return reject(
        "HQC205",
        f"{node.op_type} of two tensors on different scales needs {bits} bits",
        where=location_of(node),
        helps=("requantise both to one scale before adding them",),
    )


def on_common_units(first: Factors, second: Factors) -> tuple[Factors, Factors, Factors]:
    """Factors of two tensors as multiples of a unit, per channel: integers or powers of two."""
    if all(is_power_of_two(abs(f)) for f in (*first, *second)):
        return first, second, (Fraction(1),)
    return common_units(first, second)


def _product(emitter: IntegerBuilder, node: Node, x: Form, y: Form) -> Form:
    x, y = (_from_zero(emitter, node, form) for form in (x, y))
    first, second = x.affine, y.affine
    bits = sum(emitter.ranges[form.value].joined.magnitude_bits for form in (x, y))
    values = one_kind(emitter, [emitter.widen(form.value, bits) for form in (x, y)])
    new = emitter.node("Mul", values, node.outputs[0], "")
    n = max(len(first.a), len(second.a))
    factors = tuple(first.at(c)[0] * second.at(c)[0] for c in range(n))
    return Form(emitter.add(new), Chain().then(Affine(factors, (Fraction(0),))))


def _from_zero(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """`from_zero`, or a refusal."""
    moved = from_zero(emitter, node, form)
    if moved is None:
        raise reject(
            "HQC205",
            f"{node.op_type} of a tensor whose offset is no multiple of its step",
            where=location_of(node),
            helps=("requantise it first",),
        )
    return moved


def broadcast(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """Repeat a tensor to the shape of the node's output."""
    wanted, dims = sample_shape(node.outputs[0]), sample_shape(form.value)
    if dims == wanted:
        return form
    if len(dims) != len(wanted) or form.chain.channels > 1:
        raise reject(
            "HQC205", f"{node.op_type} broadcasts {dims} to {wanted}", where=location_of(node)
        )
    shape = emitter.integers("shape", [1, *wanted])
    return Form(
        emitter.moved("Expand", (form.value, shape), form.value, "_full", wanted), form.chain
    )


def lower_rearrangement(emitter: IntegerBuilder, node: Node, forms: Sequence[Form]) -> Form:
    """A rearrangement of one or several tensors; scales follow their channels.

    Args:
        forms: of `data_sources(node)`, in order.

    Raises:
        HqcError: HQC205, elements of different scales meet in one channel.
    """
    found = rearrangement(node)
    padded = bool(np.any(found.index < 0))
    chains = {form.chain for form in forms}
    if len(chains) > 1 or padded:
        forms = [straighten(emitter, node, form) for form in forms]
    if padded and any(any(form.affine.b) for form in forms if form.chain.affine is not None):
        forms = [_from_zero(emitter, node, form) for form in forms]
    chain = _joined_chain(found, forms)
    if chain is None:
        forms = [_on_one_unit(emitter, node, form) for form in forms]
        chain = _joined_chain(found, forms)
    if chain is None:
        raise _mixes_scales(node)
    values = one_kind(emitter, [form.value for form in forms])
    fill = Fraction(found.fill)
    if padded and fill:
        fill = _fill_code(node, fill, chain)
    out = _emit(emitter, node, values, float(fill) if padded else None)
    return Form(out, chain)


def one_kind(emitter: IntegerBuilder, values: Sequence[Value]) -> list[Value]:
    """Values that one node reads: all in float64 where one of them is."""
    if all(v.dtype != onnx_ir.DataType.DOUBLE for v in values):
        return list(values)
    return [emitter.widen(v, SINGLE_BITS + 1) for v in values]


def _on_one_unit(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """The same tensor as whole multiples of one unit, all channels alike.

    Raises:
        HqcError: HQC205, its channels have no simple common unit.
    """
    form = _from_zero(emitter, node, straighten(emitter, node, form))
    affine = form.affine
    if affine.has_one_factor:
        return Form(form.value, Chain().then(Affine.of(affine.a[0])))
    unit = common_unit([abs(a) for a in affine.a if a] or [Fraction(1)])
    factors = tuple(a / unit for a in affine.a)
    if max(map(abs, factors)) > MAX_FACTOR:
        raise _mixes_scales(node)
    return Form(emitter.scaled(form.value, factors, "_unit"), Chain().then(Affine.of(unit)))


def _mixes_scales(node: Node) -> HqcError:
    return reject(
        "HQC205",
        f"{node.op_type} mixes channels of different scales",
        where=location_of(node),
        helps=("use one scale for the tensors in front of it",),
    )


def _joined_chain(found: Rearrangement, forms: Sequence[Form]) -> Chain | None:
    """The chain behind the rearrangement; None where different ones meet in a channel."""
    first = forms[0].chain
    if first.channels == 1 and all(form.chain == first for form in forms):
        return first
    channels = found.channels()
    rows = None if channels is None else [row[row >= 0] for row in channels]
    everything = first
    if len(forms) > 1:
        pairs = [
            form.chain.affine.at(c)
            for form in forms
            if form.chain.affine is not None
            for c in range(sample_shape(form.value)[0])
        ]
        everything = Chain().then(Affine(tuple(a for a, _ in pairs), tuple(b for _, b in pairs)))
    return None if rows is None else everything.joined(rows)


def _fill_code(node: Node, fill: Fraction, chain: Chain) -> Fraction:
    affine = chain.affine
    assert affine is not None
    codes = {fill / a for a in affine.a}
    code = codes.pop()
    if codes or not is_power_of_two(Fraction(1, code.denominator)):
        raise reject(
            "HQC205",
            f"{node.op_type} pads with {float(fill):g}, which is no value of its input's grid",
            where=location_of(node),
            helps=("pad with 0, or with a multiple of the scale",),
        )
    return code


def _emit(
    emitter: IntegerBuilder, node: Node, values: Sequence[Value], fill: float | None
) -> Value:
    """The same node on integer values."""
    if node.op_type == "Resize" and values[0].dtype == onnx_ir.DataType.DOUBLE:
        return _repeated(emitter, node, values[0])
    made = dict(zip(data_sources(node), values, strict=True))
    inputs = [made.get(v, v) if v is not None else None for v in node.inputs]
    if node.op_type == "Pad" and len(node.inputs) > 2:
        inputs[2] = emitter.number("fill", fill or 0.0, like=values[0])
    dims = sample_shape(node.outputs[0])
    return emitter.moved(node.op_type, inputs, values[0], "", dims, node.attributes)


def _repeated(emitter: IntegerBuilder, node: Node, value: Value) -> Value:
    """A Resize of float64 as one Gather for each axis: onnxruntime has no other."""
    found, dims = rearrangement(node), list(sample_shape(value))
    at = np.unravel_index(found.index, dims)
    for axis, size in enumerate(found.index.shape):
        rows = np.moveaxis(at[axis], axis, 0).reshape(size, -1)[:, 0]
        if len(rows) == dims[axis] and np.array_equal(rows, np.arange(size)):
            continue
        dims[axis] = size
        index = emitter.integers(f"rows{axis}", rows.tolist())
        along = {"axis": axis + 1}
        value = emitter.moved("Gather", (value, index), value, f"_axis{axis}", dims, along)
    return value
