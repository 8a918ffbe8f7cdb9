"""Building the integer graph: nodes with typed constants, in the arithmetic that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.chains import Affine, Chain, Rectifier, Step
from hqc.diagnostics import reject
from hqc.ir import add_constant, constant, derive, fresh_name, location_of, make_node, set_type
from hqc.operators import Quant
from hqc.ranges import ChannelRange, fit, forward, value_range
from hqc.types import DOUBLE_BITS, SINGLE_BITS

#: A bias may be finer than the accumulator's step by this many bits and still be added to it.
FINER_BITS = 8


@dataclass(frozen=True)
class Form:
    """A value of the quantised graph as `chain(value)`, `value` being in the integer graph."""

    value: Value
    chain: Chain


class Emitter:
    """Adds nodes in front of the one being lowered, and knows every new value's range."""

    def __init__(self, model: Model, by: str):
        self.graph = model.graph
        self.ranges: dict[Value, ChannelRange] = {}
        self._by = by
        self._wanted: dict[Value, str] = {}
        self._here: Node | None = None

    def at(self, node: Node | None) -> None:
        """Emit in front of this node from now on; at the end of the graph if None."""
        self._here = node

    def node(self, op: str, inputs: Sequence[Value | None], like: Value, suffix: str) -> Node:
        """An unattached ONNX node named after the one being lowered."""
        base = self._here.name if self._here is not None else str(like.name)
        known = [v for v in inputs if v is not None]
        return make_node(op, known, like=like, name=f"{base}{suffix}")

    def add(self, node: Node) -> Value:
        """Attach a node and derive its range; its output takes a fresh name."""
        out = node.outputs[0]
        self._wanted[out] = str(out.name)
        out.name = fresh_name(self.graph, str(out.name))
        node.name = out.name
        if self._here is not None:
            derive((node,), self._here, self._by)
            self.graph.insert_before(self._here, node)
        else:
            self.graph.append(node)
        self.ranges[out] = forward(node, self.ranges)
        if any(v is not None and v.dtype == onnx_ir.DataType.DOUBLE for v in node.inputs):
            # a Quant gives float32, whatever it takes
            narrow = Quant.matches(node) and self.ranges[out].joined.magnitude_bits <= SINGLE_BITS
            kind = onnx_ir.DataType.FLOAT if narrow else onnx_ir.DataType.DOUBLE
            out.type = onnx_ir.TensorType(kind)  # types are shared objects
        return out

    def settle(self) -> None:
        """Give values that had to step aside the names they were meant to have, where free now."""
        for value, name in self._wanted.items():
            node = value.producer()
            if node is None or node.graph is None or value.is_graph_output():
                continue
            value.name = None
            value.name = fresh_name(self.graph, name)
            node.name = value.name

    def constant(self, name: str, values: npt.NDArray[np.float64], *, like: Value) -> Value:
        """A typed constant in the float type of the value it meets, where that holds it."""
        double = like.dtype == onnx_ir.DataType.DOUBLE
        array = np.asarray(values, np.float64 if double else np.float32)
        value = add_constant(self.graph, name, array)
        set_type(value, fit(values))
        return value

    def linear(self, node: Node, x: Value, weights: npt.NDArray[np.float64]) -> Value:
        """x @ weights, in float64 where a partial sum could leave float32's integers."""
        step = value_range(weights)
        codes = np.abs(np.ldexp(weights, -step.exponent)).sum(axis=0).max(initial=0)
        bits = int(codes * self._largest(x)).bit_length()
        x = self.widen(x, bits)
        weight = self.constant(f"{node.name}_weight", weights, like=x)
        return self.add(self.node("MatMul", (x, weight), node.outputs[0], ""))

    def flip(self, x: Value, negative: npt.NDArray[np.bool_]) -> bool:
        """Negate channels of a linear output through its weights; False if something reads it."""
        node = x.producer()
        if node is None or node.op_type != "MatMul" or x.uses() or x.is_graph_output():
            return False
        weight = node.inputs[1]
        array = constant(weight)
        assert array is not None
        assert weight is not None
        values = np.asarray(array, np.float64) * np.where(negative, -1.0, 1.0)
        node.replace_input_with(1, self.constant(str(weight.name), values, like=x))
        self.ranges[x] = forward(node, self.ranges)
        return True

    def _largest(self, x: Value) -> int:
        joined = self.ranges[x].joined
        return max(abs(joined.lo), abs(joined.hi))

    def widen(self, x: Value, bits: int) -> Value:
        """Cast to float64 if `bits`-bit integers do not fit float32; storage only.

        Raises:
            HqcError: HQC204, float64 does not hold them either.
        """
        if bits > DOUBLE_BITS:
            raise reject(
                "HQC204",
                f"sums of {bits} bits, float64 holds {DOUBLE_BITS}",
                where=location_of(self._here) if self._here is not None else None,
                helps=("use fewer bits for its inputs or weights",),
            )
        if bits <= SINGLE_BITS or x.dtype == onnx_ir.DataType.DOUBLE:
            return x
        cast = self.node("Cast", (x,), x, "_wide")
        cast.attributes.add(onnx_ir.AttrInt64("to", onnx_ir.DataType.DOUBLE.value))
        out = cast.outputs[0]
        out.type = onnx_ir.TensorType(onnx_ir.DataType.DOUBLE)
        return self.add(cast)

    def exact_step(self, x: Value, step: Step, name: str) -> Value | None:
        """A step as a node of the core, if it keeps x on a grid hardly finer than its own."""
        if isinstance(step, Rectifier):
            relu = self.node("Relu", (x,), x, "_relu")
            relu.outputs[0].name = f"{name}_relu"
            return self.add(relu)
        if not isinstance(step, Affine) or set(step.a) != {Fraction(1)}:
            return None
        values = np.array([float(b) for b in step.b], np.float64)
        if any(Fraction(v) != b for v, b in zip(values, step.b, strict=True)):
            return None
        grid = value_range(values)
        if grid.exponent < self.ranges[x].exponent - FINER_BITS:
            return None
        exponent = min(grid.exponent, self.ranges[x].exponent)
        total = self.ranges[x].joined + grid
        x = self.widen(x, total.at(exponent).magnitude_bits)
        bias = self.constant(f"{name}_bias", values, like=x)
        add = self.node("Add", (x, bias), x, "_add")
        add.outputs[0].name = f"{name}_add"
        return self.add(add)

    def dequantise(self, x: Value, steps: Sequence[Step], like: Value, name: str) -> Value:
        """Scale codes to real values on the host, in float64, then to the model's float32."""
        value = self._cast(x, onnx_ir.DataType.DOUBLE, f"{name}_codes")
        for step in steps:
            assert isinstance(step, Affine)
            for op, numbers in step.in_floats:
                if set(numbers) != {Fraction(op == "Mul")}:
                    array = np.array([float(v) for v in numbers], np.float64)
                    other = add_constant(
                        self.graph, f"{name}_{op.lower()}", array if array.size > 1 else array[0]
                    )
                    value = self._host(op, (value, other), value, f"{name}_{op.lower()}")
        return self._cast(value, like.dtype or onnx_ir.DataType.FLOAT, f"{name}_real")

    def as_float(self, x: Value, like: Value) -> Value:
        """The same value in the float type of `like`."""
        if x.dtype == like.dtype:
            return x
        return self._cast(x, like.dtype or onnx_ir.DataType.FLOAT, f"{like.name}_float")

    def _cast(self, x: Value, dtype: onnx_ir.DataType, name: str) -> Value:
        if x.dtype == dtype:
            return x
        value = self._host("Cast", (x,), x, name, {"to": dtype.value})
        value.type = onnx_ir.TensorType(dtype)
        return value

    def host(self, op: str, x: Value, other: npt.NDArray[np.float32], name: str) -> Value:
        """An operator of the host with a constant, in front of the port."""
        return self._host(op, (x, add_constant(self.graph, f"{name}_by", other)), x, name)

    def _host(
        self,
        op: str,
        inputs: Sequence[Value],
        like: Value,
        name: str,
        attributes: dict[str, int] | None = None,
    ) -> Value:
        node = make_node(
            op, inputs, like=like, name=fresh_name(self.graph, name), attributes=attributes
        )
        if self._here is not None:
            derive((node,), self._here, self._by)
            self.graph.insert_before(self._here, node)
        else:
            self.graph.append(node)
        return node.outputs[0]
