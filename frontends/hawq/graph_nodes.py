"""Nodes of the graph of a HAWQ network: constants, products, quantisers, and forms of rescaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Value

from hqc.frontends.hawq.fixed_point import Array, Single
from hqc.frontends.hawq.rescaling import Form, Stage, Thresholds
from hqc.ir import QONNX, add_constant, make_node
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import Codes, Rounding
from hqc.pipeline.node_builder import grow, set_sample_shape

OPSET = 17
BATCH = "batch"


@dataclass(frozen=True)
class Flow:
    """A tensor of the graph that holds integers: real value float32(integer * unit).

    Attributes:
        value: of the graph, (N, C) or (N, C, rows, columns).
        lo, hi: proven bounds of the integers, (C,).
        unit: (1,) or (C,), float32.
        parts: of a residual sum that is not requantised yet.
        rectified: whether a rectifier came behind the sum.
    """

    value: Value
    lo: Codes
    hi: Codes
    unit: Single
    parts: tuple[Flow, Flow] | None = None
    rectified: bool = False

    def real(self, integers: Codes) -> Single:
        """HAWQ's float32 values of integers (N, C)."""
        return np.asarray(integers.astype(np.float32) * self.unit, np.float32)


class Nodes:
    """A graph under construction, one node at a time."""

    def __init__(self) -> None:
        self.graph = Graph([], [], nodes=[], opset_imports={"": OPSET, QONNX: 1}, name="hawq")

    def input(self, shape: tuple[int, ...]) -> Value:
        """The input x, (batch, *shape), float32."""
        x = Value(name="x", shape=onnx_ir.Shape([BATCH, *shape]))
        x.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        self.graph.inputs.append(x)
        return x

    def node(
        self,
        op: str,
        inputs: tuple[Value, ...],
        name: str,
        source: str,
        shape: tuple[int, ...] = (),
        attributes: dict[str, Any] | None = None,
    ) -> Value:
        """A standard node; `shape` without the batch, or that of the first input."""
        made = make_node(op, inputs, like=inputs[0], name=name, attributes=attributes)
        if shape:
            set_sample_shape(made.outputs[0], shape, inputs[0])
        return grow(self.graph, made, source)

    def cast(self, x: Value, name: str, to: onnx_ir.DataType = onnx_ir.DataType.DOUBLE) -> Value:
        """Another float type."""
        made = make_node("Cast", (x,), like=x, name=name, attributes={"to": to.value})
        made.outputs[0].type = onnx_ir.TensorType(to)
        self.graph.append(made)
        return made.outputs[0]

    def product(self, x: Value, factor: Array, name: str) -> Value:
        """Times a constant, () or one per channel."""
        by = add_constant(self.graph, f"{name}_by", few(factor, x))
        return self.node("Mul", (x, by), name, name)

    def offset(self, x: Value, by: Array | np.float32, name: str) -> Value:
        """Plus a constant, () or one per channel."""
        constant = add_constant(self.graph, f"{name}_by", few(np.asarray(by), x))
        return self.node("Add", (x, constant), name, name)

    def quant(
        self, x: Value, name: str, bits: int, signed: bool, rounding: Rounding = Rounding.ROUND
    ) -> Value:
        """A quantiser of scale 1."""
        one, zero = np.ones((), np.float32), np.zeros((), np.int64)
        made = Quant(one, zero, bits, signed, False, rounding).build(self.graph, x, name)
        made.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        return grow(self.graph, made, name)

    def constant(self, name: str, codes: Codes, bits: int) -> Value:
        """Integer weights or biases behind a quantiser of their width."""
        raw = add_constant(self.graph, name, codes.astype(np.float32))
        return self.quant(raw, f"{name}/Quant", bits, True)

    def apply(self, form: Form, x: Value, name: str) -> Value:
        """A form of rescaling; the last node is called `name`."""
        if isinstance(form, Thresholds):
            view = MultiThreshold(form.thresholds.astype(np.float32), 1.0, float(form.lo))
            return grow(self.graph, view.build(self.graph, x, name), name)
        value = x
        for i, stage in enumerate(form):
            value = self._stage(stage, value, name if i + 1 == len(form) else f"{name}_input_units")
        return value

    def _stage(self, stage: Stage, x: Value, name: str) -> Value:
        value = self.product(self.cast(x, f"{name}_wide"), stage.factor, f"{name}_scaled")
        if np.any(stage.offset):
            value = self.offset(value, stage.offset, f"{name}_offset")
        return self.quant(value, name, stage.bits, stage.signed, stage.rounding)


def few(values: Array, x: Value) -> Array:
    """One number, or one per channel shaped to broadcast along axis 1 of x."""
    if values.size == 1:
        return values.reshape(())
    rank = len(x.shape) if x.shape is not None else 2
    return values.reshape(-1, *(1,) * (rank - 2))
