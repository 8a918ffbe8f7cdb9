"""Building the integer graph: nodes with typed constants, in the arithmetic that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values
from hqc.analysis.ranges import ChannelRange, forward, value_range
from hqc.diagnostics import Location, reject
from hqc.ir import add_constant, constant, derive, fresh_name, location_of, make_node
from hqc.ir.names import note_names
from hqc.ir.operators import Quant, is_power_of_two
from hqc.ir.windows import Window
from hqc.numerics.activations import Rectifier
from hqc.numerics.monotone_chain import Affine, Chain, Step
from hqc.numerics.types import DOUBLE_BITS, SINGLE_BITS
from hqc.pipeline.node_builder import set_sample_shape, typed_constant

#: A bias may be finer than the accumulator's step by this many bits and still be added to it.
FINER_BITS = 8


@dataclass(frozen=True)
class Form:
    """A value of the quantised graph as `chain(value)`, `value` being in the integer graph."""

    value: Value
    chain: Chain

    @property
    def affine(self) -> Affine:
        """The chain of a straight form (`rectifiers.straighten`): a factor and an offset."""
        found = self.chain.affine
        assert found is not None
        return found


def along_channels(values: npt.NDArray[np.float64], like: Value) -> npt.NDArray[np.float64]:
    """Numbers per channel in a shape that broadcasts along axis 1 of a value; one stays one."""
    rank = len(like.shape or ())
    if values.ndim != 1 or rank <= 2:
        return values
    return values.reshape(1, -1, *(1,) * (rank - 2))


class IntegerBuilder:
    """Adds nodes in front of the one being lowered, and knows every new value's range."""

    def __init__(self, model: Model, by: str):
        self.graph = model.graph
        self.ranges: dict[Value, ChannelRange] = {}
        self.computed = computed_values(model.graph)  # of the graph that is lowered
        self._by = by
        self._wanted: dict[Value, str] = {}
        self._here: Node | None = None

    def at(self, node: Node | None) -> None:
        """Emit in front of this node from now on; at the end of the graph if None."""
        self._here = node

    def node(self, op: str, inputs: Sequence[Value | None], like: Value, suffix: str) -> Node:
        """An unattached ONNX node named after the one being lowered."""
        return make_node(op, inputs, like=like, name=f"{self._base(like)}{suffix}")

    def add(self, node: Node) -> Value:
        """Attach a node and derive its range; its output takes a fresh name."""
        out = node.outputs[0]
        self._wanted[out] = str(out.name)
        out.name = fresh_name(self.graph, str(out.name))
        node.name = out.name
        self._attach(node)
        self.ranges[out] = forward(node, self.ranges)
        if any(v is not None and v.dtype == onnx_ir.DataType.DOUBLE for v in node.inputs):
            # a Quant gives float32, whatever it takes
            narrow = Quant.matches(node) and self.ranges[out].joined.magnitude_bits <= SINGLE_BITS
            kind = onnx_ir.DataType.FLOAT if narrow else onnx_ir.DataType.DOUBLE
            out.type = onnx_ir.TensorType(kind)  # types are shared objects
        return out

    def _attach(self, node: Node) -> None:
        if self._here is not None:
            derive((node,), self._here, self._by)
            self.graph.insert_before(self._here, node)
        else:
            self.graph.append(node)
        note_names([node])

    def _base(self, like: Value) -> str:
        return str(self._here.name if self._here is not None else like.name)

    def settle(self) -> None:
        """Give values that had to step aside the names they were meant to have, where free now."""
        for value, name in self._wanted.items():
            node = value.producer()
            if node is None or node.graph is None or value.is_graph_output():
                continue
            value.name = node.name = None
            value.name = fresh_name(self.graph, name)
            node.name = value.name
            note_names([node])

    def constant(self, name: str, values: npt.NDArray[np.float64], *, like: Value) -> Value:
        """A typed operand of an elementwise node: one number, or one per channel (axis 1)."""
        return self.number(name, along_channels(values, like), like=like)

    def number(self, name: str, values: npt.ArrayLike, *, like: Value) -> Value:
        """A typed constant in the float type of the value it meets, where that holds it."""
        double = like.dtype == onnx_ir.DataType.DOUBLE
        array = np.asarray(values, np.float64 if double else np.float32)
        return typed_constant(self.graph, name, array)

    def integers(self, name: str, numbers: Sequence[int]) -> Value:
        """A shape, or another list of whole numbers that an operator takes."""
        base = self._here.name if self._here is not None else "constant"
        return add_constant(self.graph, f"{base}_{name}", np.array(numbers, np.int64))

    def linear(self, node: Node, x: Value, weights: npt.NDArray[np.float64]) -> Value:
        """x @ weights, in float64 where a partial sum could leave float32's integers."""
        step = value_range(weights)
        codes = np.abs(np.ldexp(weights, -step.exponent)).sum(axis=0).max(initial=0)
        bits = int(codes * self._largest(x)).bit_length()
        x = self.widen(x, bits)
        weight = self.number(f"{node.name}_weight", weights, like=x)
        return self.add(self.node("MatMul", (x, weight), node.outputs[0], ""))

    def convolve(
        self,
        node: Node,
        x: Value,
        weights: npt.NDArray[np.float64],
        window: Window,
        out: tuple[int, ...],
    ) -> Value:
        """A convolution of x (N, C, ...) with weights (n_out, C / group, *kernel)."""
        step = value_range(weights)
        rows = np.abs(np.ldexp(weights, -step.exponent)).reshape(len(weights), -1)
        x = self.widen(x, int(rows.sum(axis=1).max(initial=0) * self._largest(x)).bit_length())
        weight = self.number(f"{node.name}_weight", weights, like=x)
        dims = (weights.shape[0], *out)
        return self.moved("Conv", (x, weight), x, "", dims, window.attributes())

    def reshape(self, x: Value, dims: Sequence[int], suffix: str) -> Value:
        """Elements in order, in another shape per sample."""
        shape = self.integers(f"{suffix.strip('_')}_shape", [-1, *dims])
        return self.moved("Reshape", (x, shape), x, suffix, dims)

    def moved(
        self,
        op: str,
        inputs: Sequence[Value | None],
        like: Value,
        suffix: str,
        dims: Sequence[int],
        attributes: Mapping[str, Any] | None = None,
    ) -> Value:
        """Attach a node whose output has another shape (per sample) than its input."""
        name = f"{self._base(like)}{suffix}"
        node = make_node(op, inputs, like=like, name=name, attributes=attributes)
        set_sample_shape(node.outputs[0], dims, like)
        return self.add(node)

    def scaled(
        self,
        x: Value,
        factors: Sequence[Fraction],
        suffix: str,
        where: Location | None = None,
    ) -> Value:
        """A value times integers or powers of two, one or one per channel, exactly."""
        if set(factors) == {Fraction(1)}:
            return x
        values = np.array([float(f) for f in factors])
        if len(set(factors)) == 1:
            values = values[:1]
        if any(Fraction(v) != f for v, f in zip(values, factors, strict=False)):
            raise reject(
                "HQC205",
                f"{x.name} on another tensor's scale needs factors beyond 53 bits",
                where=where,
                helps=("requantise both tensors to one scale",),
            )
        if not all(is_power_of_two(abs(f)) for f in factors if f):
            bits = max(abs(f.numerator).bit_length() for f in factors)
            x = self.widen(x, self.ranges[x].joined.magnitude_bits + bits)
        flat = values.reshape(()) if values.size == 1 else values
        constant = self.constant(f"{self._base(x)}_factor", flat, like=x)
        return self.add(self.node("Mul", (x, constant), x, suffix))

    def flip(self, x: Value, negative: npt.NDArray[np.bool_]) -> bool:
        """Negate channels of a linear output through its weights; False if something reads it."""
        node = x.producer()
        known = node is not None and node.op_type in ("MatMul", "Conv")
        if node is None or not known or x.uses() or x.is_graph_output():
            return False
        weight = node.inputs[1]
        array = constant(weight)
        assert array is not None
        assert weight is not None
        sign = np.where(negative, -1.0, 1.0)
        if node.op_type == "Conv":
            sign = sign.reshape(-1, *(1,) * (array.ndim - 1))
        values = np.asarray(array, np.float64) * sign
        node.replace_input_with(1, self.number(str(weight.name), values, like=x))
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
                        self.graph,
                        f"{name}_{op.lower()}",
                        along_channels(array, x) if array.size > 1 else array[0],
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
        self._attach(node)
        return node.outputs[0]
