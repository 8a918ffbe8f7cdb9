"""Small integer graphs for the backend tests, and a plain int64 evaluation of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from hqc.analysis.partition import Partition, partition
from hqc.ir import (
    QONNX,
    State,
    add_constant,
    constant,
    make_node,
    set_range,
    set_state,
    set_type,
    type_of,
)
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import Codes, FixedType, Overflow, Range, Rounding
from support import tensor_reference


class Builder:
    """Builds an integer-state model node by node, with types and ranges."""

    def __init__(self) -> None:
        self.graph = Graph([], [], nodes=[], opset_imports={"": 17, QONNX: 1}, name="net")
        self.ranges: dict[str, Range] = {}
        self.count = 0

    def input(self, name: str, size: int | tuple[int, ...], type_: FixedType) -> Value:
        """A float graph input and its quantiser; returns the quantised value."""
        dims = (size,) if isinstance(size, int) else size
        value = Value(name=name, shape=onnx_ir.Shape(["N", *dims]))
        value.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        self.graph.inputs.append(value)
        return self._add(Quant.of_type(type_).build(self.graph, value, f"{name}_q"), type_)

    def quant(self, x: Value, type_: FixedType) -> Value:
        return self._add(Quant.of_type(type_).build(self.graph, x, self._name("q")), type_)

    def matmul(self, x: Value, weight: Codes, type_: FixedType) -> Value:
        w = self.constant("w", weight, type_)
        node = make_node("MatMul", [x, w], like=x, name=self._name("mm"))
        node.outputs[0].shape = onnx_ir.Shape(["N", weight.shape[1]])
        r = self.range_of(x)
        ends = [weight.astype(object) * end for end in (r.lo, r.hi)]
        low = np.minimum(*ends).sum(axis=0)
        high = np.maximum(*ends).sum(axis=0)
        found = Range(int(low.min()), int(high.max()), r.exponent - type_.fraction)
        return self._add(node, found.fit(), found)

    def add(self, x: Value, codes: Codes, type_: FixedType) -> Value:
        c = self.constant("c", codes, type_)
        node = make_node("Add", [x, c], like=x, name=self._name("add"))
        found = self.range_of(x) + Range(int(codes.min()), int(codes.max()), -type_.fraction)
        return self._add(node, found.fit(), found)

    def mul(self, x: Value, codes: Codes, type_: FixedType) -> Value:
        c = self.constant("m", codes, type_)
        node = make_node("Mul", [x, c], like=x, name=self._name("mul"))
        found = self.range_of(x) * Range(int(codes.min()), int(codes.max()), -type_.fraction)
        return self._add(node, found.fit(), found)

    def relu(self, x: Value) -> Value:
        found = self.range_of(x).relu()
        return self._add(
            make_node("Relu", [x], like=x, name=self._name("relu")), found.fit(), found
        )

    def merge(self, x: Value, y: Value, op: str = "Add") -> Value:
        a, b = self.range_of(x), self.range_of(y)
        found = a + b if op == "Add" else a * b
        node = make_node(op, [x, y], like=x, name=self._name("merge"))
        return self._add(node, found.fit(), found)

    def conv(self, x: Value, weight: Codes, type_: FixedType, **attributes: Any) -> Value:
        """A convolution; weight is (c_out, c_in / group, *kernel)."""
        w = self.constant("w", weight, type_)
        node = make_node("Conv", [x, w], like=x, name=self._name("conv"), attributes=attributes)
        node.outputs[0].shape = self._result_shape(node, [x])
        r = self.range_of(x).join(Range(0, 0, self.range_of(x).exponent))
        ends = [weight.astype(object) * end for end in (r.lo, r.hi)]
        axes = tuple(range(1, weight.ndim))
        low, high = np.minimum(*ends).sum(axis=axes), np.maximum(*ends).sum(axis=axes)
        found = Range(int(low.min()), int(high.max()), r.exponent - type_.fraction)
        return self._add(node, found.fit(), found)

    def max_pool(self, x: Value, **attributes: Any) -> Value:
        node = make_node("MaxPool", [x], like=x, name=self._name("pool"), attributes=attributes)
        node.outputs[0].shape = self._result_shape(node, [x])
        return self._add(node, self.range_of(x).fit(), self.range_of(x))

    def move(self, op: str, *inputs: Value | Any, **attributes: Any) -> Value:
        """An operator that rearranges: computed inputs, then constants as arrays."""
        given = [
            x if isinstance(x, Value) or x is None else add_constant(self.graph, self._name("k"), x)
            for x in inputs
        ]
        sources = [x for x in inputs if isinstance(x, Value)]
        node = make_node(op, given, like=sources[0], name=self._name(op), attributes=attributes)
        node.outputs[0].shape = self._result_shape(node, sources)
        found = self.range_of(sources[0])
        for x in sources[1:]:
            found = found.join(self.range_of(x))
        if op == "Pad":
            fill = Fraction(float(inputs[2]) if len(inputs) > 2 else 0.0)
            bits = fill.denominator.bit_length() - 1
            code = int(fill * 2**bits)
            found = found.join(Range(code, code, -bits))
        return self._add(node, found.fit(), found)

    def _result_shape(self, node: Node, sources: Sequence[Value]) -> onnx_ir.Shape:
        """What the node gives for two samples of zeros, by its reference implementation."""
        zeros = [np.zeros((2, *[int(d) for d in list(v.shape or ())[1:]])) for v in sources]
        found = tensor_reference.evaluate(node, zeros, 0)
        return onnx_ir.Shape(["N", *found.shape[1:]])

    def thresholds(self, x: Value, rows: Any, bias: int = 0) -> Value:
        rows = np.asarray(rows, np.float64)
        node = MultiThreshold(rows, 1.0, float(bias)).build(self.graph, x, self._name("mt"))
        found = Range(bias, bias + rows.shape[1])
        return self._add(node, found.fit(), found)

    def node(self, op: str, inputs: Sequence[Value], type_: FixedType) -> Value:
        return self._add(make_node(op, inputs, like=inputs[0], name=self._name(op)), type_)

    def retype(self, x: Value, type_: FixedType) -> Value:
        """Annotate another type and the whole of its range."""
        set_type(x, type_)
        self.ranges[str(x.name)] = type_.limits
        set_range(x, type_.limits)
        return x

    def constant(self, name: str, codes: Codes, type_: FixedType) -> Value:
        values = np.ldexp(np.asarray(codes, np.float64), -type_.fraction)
        value = add_constant(self.graph, self._name(name), values)
        set_type(value, type_)
        return value

    def finish(self, *outputs: Value) -> tuple[Model, Partition]:
        self.graph.outputs.extend(outputs)
        model = Model(self.graph, ir_version=10)
        set_state(model, State.INTEGER)
        return model, partition(model)

    def range_of(self, x: Value) -> Range:
        return self.ranges[str(x.name)]

    def _add(self, node: Node, type_: FixedType, range_: Range | None = None) -> Value:
        self.graph.append(node)
        out = node.outputs[0]
        set_type(out, type_)
        self.ranges[str(out.name)] = range_ or type_.limits
        set_range(out, self.ranges[str(out.name)])
        return out

    def _name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"


def evaluate(parts: Partition, codes: Mapping[str, Codes]) -> dict[str, Codes]:
    """Output port codes by plain int64 arithmetic, node by node."""
    known = {name: (c, _type(parts, name).fraction) for name, c in codes.items()}
    for node in parts.core:
        known[str(node.outputs[0].name)] = _step(node, known)
    found = {}
    for port in parts.outputs:
        value, fraction = known[port.name]
        found[port.name] = _at(value, fraction, port.type.fraction).astype(np.int64)
    return found


def _type(parts: Partition, name: str) -> FixedType:
    return next(p.type for p in parts.inputs if p.name == name)


def _step(node: Node, known: Mapping[str, tuple[Codes, int]]) -> tuple[Codes, int]:
    x, fraction = known[str(node.inputs[0].name)]  # type: ignore[union-attr]
    if node.op_type == "Quant":
        type_ = Quant.read(node).fixed_type
        assert type_ is not None
        return type_.quantise(x, -fraction), type_.fraction
    if node.op_type == "MultiThreshold":
        view = MultiThreshold.read(node)
        values = np.moveaxis(np.ldexp(x.astype(np.float64), -fraction), 1, -1)
        reached = (values[..., None] >= view.thresholds).sum(axis=-1)
        return np.moveaxis(reached, -1, 1) + int(view.out_bias), 0
    if node.op_type == "Relu":
        return np.maximum(x, 0), fraction
    if node.op_type == "Identity":
        return x, fraction
    if node.op_type in tensor_reference.OPERATORS:
        return _tensor(node, known)
    other = node.inputs[1]
    assert other is not None
    array = constant(other)
    if array is None:
        y, y_fraction = known[str(other.name)]
    else:
        type_ = type_of(other)
        assert type_ is not None
        y_fraction = type_.fraction
        y = np.ldexp(array.astype(np.float64), y_fraction).astype(np.int64)
    if node.op_type == "MatMul":
        product = x.astype(object) @ y.astype(object)  # Python integers: of any size
        small = np.abs(product).max(initial=0) < 2**62
        return product.astype(np.int64) if small else product, fraction + y_fraction
    if node.op_type == "Mul":
        return x * y, fraction + y_fraction
    finest = max(fraction, y_fraction)
    return _at(x, fraction, finest) + _at(y, y_fraction, finest), finest


def _tensor(node: Node, known: Mapping[str, tuple[Codes, int]]) -> tuple[Codes, int]:
    """Windows and rearrangements: on codes of one common fraction."""
    sources = [known[str(v.name)] for v in node.inputs if v is not None and v.name in known]
    type_ = type_of(node.outputs[0])
    assert type_ is not None
    finest = max(fraction for _, fraction in sources)
    if node.op_type == "Pad":
        finest = max(finest, type_.fraction)
    aligned = [_at(codes, fraction, finest) for codes, fraction in sources]
    if node.op_type == "Conv":
        weight = type_of(node.inputs[1])  # type: ignore[arg-type]
        assert weight is not None
        return tensor_reference.evaluate(node, aligned, weight.fraction), finest + weight.fraction
    return tensor_reference.evaluate(node, aligned, finest), finest


def _at(codes: Codes, fraction: int, wanted: int) -> Codes:
    if wanted >= fraction:
        return codes << (wanted - fraction)
    assert not np.any(codes & ((1 << (fraction - wanted)) - 1))
    return codes >> (fraction - wanted)


def signed(width: int, integer: int, rounding: Rounding = Rounding.ROUND) -> FixedType:
    return FixedType(True, width, integer, rounding, Overflow.SAT)


def unsigned(width: int, integer: int, rounding: Rounding = Rounding.ROUND) -> FixedType:
    return FixedType(False, width, integer, rounding, Overflow.SAT)


HARDWARE_ROUNDINGS = tuple(r for r in Rounding if r.hardware is not None)


def zoo() -> tuple[Model, Partition]:
    """Every kind of layer and every mode once, as one network with many outputs."""
    rng = np.random.default_rng(5)
    b = Builder()
    x = b.input("x", 4, signed(10, 5))
    outputs = [*_casts(b, x), *_requantisers(b, x, rng), *_products(b, rng), *_others(b, x)]
    return b.finish(*outputs)


def modes() -> tuple[Model, Partition]:
    """Every mode, thresholds and merges: what `zoo` has without its sums of 70 bits."""
    b = Builder()
    x = b.input("x", 4, signed(10, 5))
    rng = np.random.default_rng(5)
    return b.finish(*_casts(b, x), *_requantisers(b, x, rng), *_others(b, x))


def _casts(b: Builder, x: Value) -> list[Value]:
    found = []
    for rounding in HARDWARE_ROUNDINGS:
        for overflow in (Overflow.SAT, Overflow.SAT_SYM):
            found.append(b.quant(x, FixedType(True, 5, 3, rounding, overflow)))
        found.append(b.quant(x, unsigned(4, 2, rounding)))
        found.append(b.quant(b.relu(x), unsigned(1, 1, rounding)))
    found.append(b.quant(x, signed(4, -1)))  # less than half of a step of everything
    found.append(b.quant(x, signed(3, 6, Rounding.HALF_UP)))  # steps of eight
    found.append(b.quant(x, unsigned(1, 0, Rounding.HALF_DOWN)))
    return found


def _requantisers(b: Builder, x: Value, rng: np.random.Generator) -> list[Value]:
    scales = np.array([37, -21, 1, -63])
    offsets = np.array([5, -120, 0, 77])
    per_channel = b.mul(x, scales, FixedType(True, 7, 1))
    shifted = b.add(per_channel, offsets, FixedType(True, 8, 3))
    alone = b.mul(x, np.array(11), FixedType(False, 4, -2))
    return [
        b.quant(shifted, signed(6, 4, Rounding.HALF_UP)),
        b.quant(b.mul(x, scales, FixedType(True, 7, 9)), signed(8, 14, Rounding.HALF_DOWN)),
        b.quant(alone, signed(5, 2, Rounding.FLOOR)),
        b.quant(b.add(x, offsets, FixedType(True, 8, 3)), signed(7, 5, Rounding.DOWN)),
        b.quant(b.mul(b.relu(x), np.array([3, 1, 2, 0]), FixedType(False, 2, 0)), unsigned(3, 2)),
    ]


def _products(b: Builder, rng: np.random.Generator) -> list[Value]:
    """Dense layers: bipolar, ternary and one-bit operands, wide sums, odd binary points."""
    y = b.input("y", 6, FixedType(True, 16, 3, Rounding.HALF_UP, Overflow.SAT_SYM))
    bits = b.quant(b.relu(y), unsigned(1, 1, Rounding.FLOOR))
    bipolar = rng.choice([-1, 1], (6, 5))
    ternary = rng.integers(-1, 2, (6, 4))
    one_bit = b.matmul(bits, bipolar, FixedType(True, 2, 2))
    by_bits = b.matmul(y, rng.integers(0, 2, (6, 3)), FixedType(False, 1, -2))
    wide = b.matmul(y, rng.integers(-(2**15), 2**15, (6, 3)), FixedType(True, 16, -3))
    wide = b.add(wide, rng.integers(-(2**20), 2**20, 3), FixedType(True, 30, 4))
    coarse = b.matmul(y, rng.integers(-4, 4, (6, 3)), FixedType(True, 3, 8))
    lowest = b.matmul(y, np.full((6, 2), -2), FixedType(True, 2, 2))
    z = b.input("z", 3, signed(32, 5))
    huge = b.matmul(z, rng.integers(-(2**35), 2**35, (3, 4)), FixedType(True, 36, 4))
    scaled = b.mul(wide, np.array([30011, -29, 65535]), FixedType(True, 17, 1))
    return [
        one_bit,
        b.quant(b.matmul(bits, ternary, FixedType(True, 2, 2)), signed(3, 3)),
        by_bits,
        b.quant(wide, signed(9, 2)),
        wide,
        b.quant(scaled, signed(12, 3, Rounding.HALF_DOWN)),
        b.quant(b.relu(coarse), unsigned(5, 9)),
        lowest,
        b.quant(huge, signed(12, 7)),  # sums of 70 bits
        b.quant(b.relu(huge), unsigned(12, 7, Rounding.HALF_UP)),
    ]


def _others(b: Builder, x: Value) -> list[Value]:
    steps = b.quant(x, signed(5, 3))
    total = b.merge(steps, x)
    rows = [[-3.0, -0.25, 0.0, 1.3], [-np.inf, 2.0, 2.0, np.inf], [0.0] * 4, [-16, -1, 3, 15.97]]
    each = b.thresholds(x, rows, bias=-2)
    shared = b.thresholds(steps, [[0.5, 1.0]])
    flat = b.node("Identity", [shared], FixedType(False, 2, 2))
    dense = b.matmul(each, np.arange(8).reshape(4, 2) - 3, FixedType(True, 4, 2))
    return [steps, total, b.quant(b.merge(total, x), signed(6, 5)), each, flat, dense]


def corner_codes(parts: Partition, samples: int, seed: int) -> dict[str, Codes]:
    """Random codes; the first columns of a narrow port go through all of its codes."""
    rng = np.random.default_rng(seed)
    found = {}
    for port in parts.inputs:
        limits = port.type.limits
        codes = rng.integers(limits.lo, limits.hi + 1, (samples, *port.shape))
        ramp = limits.lo + np.arange(samples) % (limits.hi - limits.lo + 1)
        flat = codes.reshape(samples, -1)
        for column in range(flat.shape[1]):
            if limits.hi - limits.lo < samples:
                flat[:, column] = np.roll(ramp, 7 * column)
        flat[0], flat[1] = limits.lo, limits.hi
        flat[2], flat[3] = 0, limits.lo
        flat[3, 1::2] = limits.hi
        found[port.name] = codes
    return found
