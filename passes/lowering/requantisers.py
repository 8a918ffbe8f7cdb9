"""Lowering of quantisers: ports, native casts, dyadic requantisers and thresholds."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from fractions import Fraction

import numpy as np
from onnx_ir import Node, Value

from hqc.analysis.dependence import data_input
from hqc.analysis.dyadic_requantiser import (
    Dyadic,
    reachable_thresholds,
    smallest_dyadic,
    thresholds_are_cheaper,
)
from hqc.analysis.partition import code_boundaries, code_grid, is_linear
from hqc.analysis.ranges import ChannelRange
from hqc.analysis.step_functions import Coder, Quantiser, StepFunction, Thresholds, step_function
from hqc.diagnostics import reject
from hqc.ir import Array, location_of, sole_consumer
from hqc.ir.operators import MultiThreshold, Quant, exact, power_of_two
from hqc.numerics.activations import Rectifier
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.numerics.types import DOUBLE_BITS, SINGLE_BITS, FixedType, Overflow, Rounding
from hqc.passes.lowering.integer_builder import FINER_BITS, Form, IntegerBuilder

#: Widest codes whose boundaries are enumerated one by one.
MAX_BITS = 16
#: More comparisons per channel than this are no hardware.
MAX_THRESHOLDS = 1024


def lower_port(emitter: IntegerBuilder, node: Node, chain: Chain) -> Form:
    """The first quantiser after a graph input: what the wires carry.

    One power-of-two scale: the port is that fixed-point type. Else the host divides by the scale
    and the wires carry codes. Bipolar inputs become one bit, compared on the host.
    """
    source = node.inputs[0]
    assert source is not None
    out = node.outputs[0]
    coder = code_boundaries(node)
    if isinstance(coder, Thresholds):
        return Form(_copy(emitter, node, source), Chain().then(code_grid(node, coder)))
    quant = Quant.read(node) if Quant.matches(node) else None
    if quant is not None and quant.fixed_type is not None:
        return Form(_copy(emitter, node, source), Chain())
    if coder.bipolar:
        if any(coder.zero_point):
            raise reject("HQC102", "a bipolar port with a zero point", where=location_of(node))
        view = MultiThreshold(np.zeros((1, 1), np.float32))
        built = view.build(emitter.graph, source, str(out.name))
        return Form(emitter.add(built), Chain().then(coder.grid()))
    assert quant is not None
    _check_bits(node)
    unit = replace(quant, scale=np.ones((), np.float32), zero_point=np.zeros((), np.int64))
    if unit.fixed_type is None:
        raise reject(
            "HQC203",
            f"an input quantiser that rounds {quant.rounding.value}"
            + (" to a narrow range" if quant.narrow else ""),
            where=location_of(node),
            helps=("use rounding ROUND and narrow=0 at the input",),
        )
    value = emitter.host("Div", source, _array(quant.scale), f"{node.name}_scaled")
    if np.any(quant.zero_point):
        value = emitter.host("Add", value, _array(quant.zero_point), f"{node.name}_shifted")
    return Form(
        emitter.add(unit.build(emitter.graph, value, str(out.name))), Chain().then(coder.grid())
    )


def _array(values: Array) -> Array:
    array = np.asarray(values, np.float32)
    return array.reshape(()) if array.size == 1 else array


def _copy(emitter: IntegerBuilder, node: Node, source: Value) -> Value:
    name = str(node.outputs[0].name)
    if MultiThreshold.matches(node):
        view = replace(MultiThreshold.read(node), out_scale=1.0, out_bias=0.0)
        return emitter.add(view.build(emitter.graph, source, name))
    type_ = Quant.read(node).fixed_type  # a scale given per channel, but equal, becomes one number
    assert type_ is not None
    return emitter.add(Quant.of_type(type_).build(emitter.graph, source, name))


def lower_quantiser(
    emitter: IntegerBuilder, node: Node, form: Form, max_bits: int
) -> tuple[Form, str]:
    """A quantiser inside the network, and a remark about how it was done."""
    coder = code_boundaries(node)
    if Quant.matches(node) and (native := _native(emitter, node, form)) is not None:
        return native, ""
    known = emitter.ranges[form.value]
    _check_bits(node)
    scalar = form.chain.channels == 1 and coder.channels == 1
    lo, hi = known.lo, known.hi
    if scalar:
        lo, hi = np.array([lo.min()]), np.array([hi.max()])
    channels = max(len(lo), form.chain.channels, coder.channels)
    lo, hi = (np.broadcast_to(end, channels) for end in (lo, hi))
    chain = _over_codes(form.chain, known)
    f = _from_zero(step_function(chain, coder, channels), lo, hi)
    dyadic = None
    if isinstance(coder, Quantiser) and saturates(f):
        dyadic = smallest_dyadic(f, lo, hi, coder.rounding)
    return emit_step(emitter, node, form.value, f, dyadic, coder, max_bits)


def emit_step(
    emitter: IntegerBuilder,
    node: Node,
    value: Value,
    f: StepFunction,
    dyadic: Dyadic | None,
    coder: Coder,
    max_bits: int,
) -> tuple[Form, str]:
    """A step function of an integer value: as a requantiser, or as thresholds.

    Args:
        node: the quantiser.
        value: the integers.
        f: the codes that each reachable integer must get.
        dyadic: a requantiser that does it, if there is one.
        coder: the quantiser's codes.
        max_bits: widest multiplier.

    Raises:
        HqcError: HQC202, it would take too many thresholds.
    """
    known = emitter.ranges[value]
    form = Form(value, Chain())
    if len(f.sign) == 1:
        lo, hi = np.array([known.lo.min()]), np.array([known.hi.max()])
    else:
        lo, hi = (np.broadcast_to(end, len(f.sign)) for end in (known.lo, known.hi))
    if dyadic is not None and (
        dyadic.bits > max_bits or _product_bits(dyadic, known) > DOUBLE_BITS
    ):
        dyadic = None
    if dyadic is None or thresholds_are_cheaper(f, dyadic, lo, hi):
        if f.hi - f.lo > MAX_THRESHOLDS:
            raise reject(
                "HQC202",
                f"no dyadic multiplier up to {max_bits} bits is identical to the real scale",
                where=location_of(node),
                notes=(f"and {f.hi - f.lo} thresholds per channel are beyond reason",),
                helps=("use fewer bits for this activation, or a power-of-two scale",),
            )
        return _thresholds(emitter, node, form, f, lo, hi, coder)
    return _requantise(emitter, node, form, dyadic, known, coder)


def _from_zero(f: StepFunction, lo: Array, hi: Array) -> StepFunction:
    """Without the negative codes, where a rectifier keeps everything from them.

    The type is unsigned then, and its saturation at zero is the rectifier.
    """
    negative = max(0, -f.lo)
    first = np.where(f.sign < 0, -hi, lo)
    if not negative or f.hi <= 0 or np.any(f.thresholds[:, :negative] > first[:, None]):
        return f
    return StepFunction(0, f.sign, f.thresholds[:, negative:])


def _check_bits(node: Node) -> None:
    if Quant.matches(node) and (bits := Quant.read(node).bits) > MAX_BITS:
        raise reject(
            "HQC202",
            f"{bits}-bit codes on a scale that is no power of two",
            where=location_of(node),
            helps=(f"use up to {MAX_BITS} bits, or a power-of-two scale",),
        )


def _over_codes(chain: Chain, known: ChannelRange) -> Chain:
    """The same chain over the value's codes instead of its real values."""
    return Chain().then(Affine.of(Fraction(2) ** known.exponent)).extended(chain.steps)


def _native(emitter: IntegerBuilder, node: Node, form: Form) -> Form | None:
    """Where every factor is 1 and every bias on the grid, the quantiser's own cast does it."""
    quant = Quant.read(node)
    if quant.fixed_type is None:
        return None
    finest = emitter.ranges[form.value].exponent - FINER_BITS
    for step in form.chain.steps:
        if isinstance(step, Rectifier):
            continue
        if not isinstance(step, Affine) or set(step.a) != {Fraction(1)}:
            return None
        if any((b / Fraction(2) ** finest).denominator != 1 for b in step.b):
            return None
    value = form.value
    for step in form.chain.steps:
        done = emitter.exact_step(value, step, str(node.name))
        assert done is not None
        value = done
    built = Quant.of_type(quant.fixed_type).build(emitter.graph, value, str(node.outputs[0].name))
    return Form(emitter.add(built), Chain())


def saturates(f: StepFunction) -> bool:
    """Whether the code limits are those of a type that saturates."""
    return _code_type(f.lo, f.hi) is not None


def _code_type(lo: int, hi: int) -> FixedType | None:
    bits = hi.bit_length()
    if lo == 0 and hi == (1 << bits) - 1 and bits:
        return FixedType(False, bits, bits, Rounding.FLOOR, Overflow.SAT)
    if lo < 0 and hi == (1 << bits) - 1 and lo in (-hi - 1, -hi):
        overflow = Overflow.SAT if lo == -hi - 1 else Overflow.SAT_SYM
        return FixedType(True, bits + 1, bits + 1, Rounding.FLOOR, overflow)
    return None


def _requantise(
    emitter: IntegerBuilder, node: Node, form: Form, d: Dyadic, known: ChannelRange, coder: Coder
) -> tuple[Form, str]:
    code_type = _code_type(d.lo, d.hi)
    assert code_type is not None
    assert isinstance(coder, Quantiser)
    quant = Quant.read(node) if Quant.matches(node) else None
    step = power_of_two(quant.scale) if quant is not None and not coder.bipolar else None
    in_units = step is not None and not any(coder.zero_point)
    exponent = step if in_units and step is not None else 0
    factor = np.ldexp(d.multiplier.astype(np.float64), exponent - d.shift - known.exponent)
    offset = np.ldexp(d.offset.astype(np.float64), exponent - d.shift)
    value = emitter.widen(form.value, _product_bits(d, known))
    if np.any(factor != 1.0):
        m = emitter.constant(f"{node.name}_multiplier", _squeeze(factor), like=value)
        value = emitter.add(emitter.node("Mul", (value, m), value, "_scale"))
    if np.any(offset):
        o = emitter.constant(f"{node.name}_offset", _squeeze(offset), like=value)
        value = emitter.add(emitter.node("Add", (value, o), value, "_offset"))
    built = Quant.of_type(
        replace(code_type, integer=code_type.width + exponent, rounding=d.rounding)
    ).build(emitter.graph, value, str(node.outputs[0].name))
    built.outputs[0].type = node.outputs[0].type
    chain = Chain() if in_units else Chain().then(coder.grid())
    remark = f"requantise by {d.bits}-bit multipliers, shift {d.shift}: identical on every"
    return Form(emitter.add(built), chain), f"{remark} reachable accumulator ({d.rounding.value})"


def _squeeze(values: Array) -> Array:
    """One number where all channels have the same."""
    return values[:1].reshape(()) if len(values) == 1 else values


def _product_bits(d: Dyadic, known: ChannelRange) -> int:
    largest = max(abs(known.joined.lo), abs(known.joined.hi))
    product = largest * int(np.max(np.abs(d.multiplier))) + int(np.max(np.abs(d.offset)))
    return max(product.bit_length(), SINGLE_BITS if product == 0 else 0)


def _thresholds(
    emitter: IntegerBuilder,
    node: Node,
    form: Form,
    f: StepFunction,
    lo: Array,
    hi: Array,
    coder: Coder,
) -> tuple[Form, str]:
    """Compare with every reachable threshold and count."""
    exponent = emitter.ranges[form.value].exponent
    rows, lowest = _decisive(f, reachable_thresholds(f, lo, hi), lo, hi)
    value = form.value
    negative = np.asarray(f.sign < 0)
    if np.any(negative) and not (
        _read_once(node, emitter.computed) and emitter.flip(value, negative)
    ):
        sign = np.asarray(f.sign, np.float64)
        m = emitter.constant(f"{node.name}_sign", _squeeze(sign), like=value)
        value = emitter.add(emitter.node("Mul", (value, m), value, "_sign"))
    real = np.ldexp(rows.astype(np.float64), exponent)
    array = real if value.dtype is not None and value.dtype.name == "DOUBLE" else _single(real)
    view = MultiThreshold(array, 1.0, float(lowest))
    built = view.build(emitter.graph, value, str(node.outputs[0].name))
    built.outputs[0].type = node.outputs[0].type
    out = emitter.add(built)
    return Form(
        out, Chain().then(code_grid(node, coder))
    ), f"{rows.shape[1]} thresholds per channel"


def _decisive(f: StepFunction, rows: Array, lo: Array, hi: Array) -> tuple[Array, int]:
    """Without the thresholds that all channels always pass, or never, and the lowest code left."""
    down = f.sign < 0
    first, last = np.where(down, -hi, lo), np.where(down, -lo, hi)
    passed = int(np.all(rows <= first[:, None], axis=0).sum())
    missed = int(np.all(rows > last[:, None], axis=0).sum())
    passed = min(passed, rows.shape[1] - 1)  # a constant keeps one
    end = max(rows.shape[1] - missed, passed + 1)
    return rows[:, passed:end], f.lo + passed


def _read_once(node: Node, computed: Container[Value]) -> bool:
    """Whether nothing but this quantiser reads any value between it and the linear layer before."""
    value, user = data_input(node, computed), node
    while value is not None and sole_consumer(value) is user:
        producer = value.producer()
        if producer is None:
            return False
        if is_linear(producer):
            return True
        value, user = data_input(producer, computed), producer
    return False


def _single(values: Array) -> Array:
    single = np.asarray(values, np.float32)
    if exact(single) != exact(values):
        raise reject("HQC204", "thresholds beyond float32 on a float32 accumulator")
    return single
