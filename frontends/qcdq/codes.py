"""Integer tensors of a file as codes of float tensors, and how they become floats again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.diagnostics import HqcError, reject
from hqc.frontends.onnx.constants import evaluate
from hqc.frontends.onnx.grids import chain, same, saturating
from hqc.frontends.onnx.shapes import Ranks
from hqc.ir import Array, constant, fresh_name, location_of, make_node
from hqc.ir.edits import keep_source, swap
from hqc.ir.operators import check_scale
from hqc.pipeline.node_builder import NodeBuilder

_INTEGER = re.compile(r"(U?)INT(\d+)")


@dataclass(frozen=True)
class Codes:
    """An integer tensor: saturate(round_half_even(x / scale) + zero_point) within lo..hi.

    Attributes:
        x: the float tensor.
        scale: float32, scalar or broadcastable against x.
        zero_point: int64, likewise.
        lo, hi: lowest and highest code.
        is_settled: whether x is on the grid and within the limits already.
        shifts_first: whether the zero point is added before rounding, not after.
    """

    x: Value
    scale: Array
    zero_point: Array
    lo: int
    hi: int
    is_settled: bool = False
    shifts_first: bool = False

    @property
    def is_per_tensor(self) -> bool:
        """Whether all channels share scale and zero point."""
        return self.scale.size == 1 and self.zero_point.size == 1

    def quantisers(
        self, region: Region, like: Node, scale: Array, x: Value, name: str
    ) -> list[Node]:
        """Nodes that put x on the grid of `scale` without a zero point, within these limits."""
        lo, hi = self.lo - self.zero_point, self.hi - self.zero_point
        shift = self.zero_point if self.shifts_first else 0
        try:
            quants = saturating(scale, np.asarray(lo), np.asarray(hi), shift)
        except HqcError as error:
            first = error.diagnostics[0]
            raise reject(first.code, first.message, where=location_of(like)) from error
        return chain(region.model.graph, x, quants, name)

    def dequantise(self, region: Region, like: Node, scale: Array, zero_point: Array) -> list[Node]:
        """Nodes whose last output is scale * (codes - zero_point).

        With another scale than the codes' own, the codes come first, as whole numbers:
        x / own scale -> quantiser of scale 1 -> + difference of zero points -> * scale.
        """
        name = str(like.outputs[0].name)
        if same(scale, self.scale) and same(zero_point, self.zero_point):
            if self.is_settled:
                return [renamed(self.x, name)]
            return self.quantisers(region, like, self.scale, self.x, name)
        new, x = NodeBuilder(region.model.graph, name, self.x), self.x
        if not same(self.scale, np.ones(())):
            x = new.add("Div", (x, new.number(self.scale, "step")), "steps")
        for made in self.quantisers(region, like, np.ones((), np.float32), x, f"{name}_codes"):
            x = new.append(made)
        shift = np.asarray(self.zero_point - zero_point)
        for op, operand, neutral in (("Add", shift, 0), ("Mul", scale, 1)):
            if not np.all(operand == neutral):
                x = new.add(op, (x, new.number(operand, op.lower())), op)
        return new.nodes


def renamed(value: Value, name: str) -> Node:
    """A node that gives a value another name."""
    return make_node("Identity", (value,), like=value, name=name)


@dataclass
class Region:
    """State of one rewrite: the codes of every integer tensor met so far."""

    model: Model
    ranks: Ranks
    codes: dict[Value, Codes] = field(default_factory=dict)
    failed: set[Value] = field(default_factory=set)
    _floats: dict[tuple[Value, bytes, bytes], Value] = field(default_factory=dict)

    def floats(self, source: Value, like: Node, scale: Array, zero_point: Array) -> Value:
        """Codes of the file as floats, scale * (codes - zero_point); made once for all users."""
        key = (source, scale.astype(np.float64).tobytes(), zero_point.astype(np.int64).tobytes())
        if key not in self._floats:
            made = self.codes[source].dequantise(self, like, scale, zero_point)
            self._floats[key] = self.insert(like, made)
        return self._floats[key]

    def rank(self, value: Value) -> int | None:
        """Number of axes of a value of the file."""
        return self.ranks.of(value)

    def insert(self, before: Node, new: list[Node]) -> Value:
        """Put nodes before one of the file, with its provenance; the last one's output."""
        keep_source(new, before)
        for node in new:
            self._rename(node)
        self.model.graph.insert_before(before, new)
        return new[-1].outputs[0]

    def put(self, old: Node, new: list[Node]) -> None:
        """Put nodes in the place of one of the file; the last one gives its output."""
        out = old.outputs[0]
        keep_source(new, old)
        for node in new:
            if node.outputs[0].name != out.name:
                self._rename(node)
        last = new[-1].outputs[0]
        last.shape = out.shape if last.shape is None else last.shape
        last.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        swap(old, new)

    def value(self, like: Node, index: int, scale: Array, zero_point: Array) -> Value | None:
        """Input `index` of a node as a float tensor: scale * (codes - zero_point).

        None where the input is missing.
        """
        source = like.inputs[index] if index < len(like.inputs) else None
        if source is None:
            return None
        if source not in self.codes:
            raise reject(
                "HQC102",
                f"input {source.name} of {like.op_type} is no tensor of codes",
                where=location_of(like),
            )
        return self.floats(source, like, scale, zero_point)

    def stored(self, node: Node, index: int) -> Array | None:
        """The integers of a constant input, or None if it is computed."""
        value = node.inputs[index] if index < len(node.inputs) else None
        found = evaluate(self.model, value) if value is not None else None
        return None if found is None else found.astype(np.int64)

    def _rename(self, node: Node) -> None:
        out = node.outputs[0]
        out.name = fresh_name(self.model.graph, str(out.name))
        node.name = str(out.name)


def integer_limits(type_: onnx_ir.DataType, node: Node) -> tuple[int, int]:
    """Lowest and highest code of a storage type.

    Raises:
        HqcError: HQC102, a type of floats, or of more than 32 bits.
    """
    match = _INTEGER.fullmatch(type_.name)
    if match is None or int(match[2]) > 32:
        raise reject(
            "HQC102",
            f"{node.op_type} with codes of type {type_.name}",
            where=location_of(node),
            notes=("codes are integers of up to 32 bits",),
        )
    bits = int(match[2])
    return (0, (1 << bits) - 1) if match[1] else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def parameter(node: Node, index: int) -> Array | None:
    """A constant input, None if it is left out.

    Raises:
        HqcError: HQC108, it is computed from the data.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    array = constant(value)
    if array is None:
        raise reject(
            "HQC108",
            f"input {index} of {node.op_type} ({value.name}) is not a constant",
            where=location_of(node),
            helps=("use static quantisation, so that scales are constants",),
        )
    return np.asarray(array)


def storage_type(node: Node, index: int) -> onnx_ir.DataType | None:
    """The type in which a file stores a constant input, or None where it is left out."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    tensor = onnx_ir.convenience.get_const_tensor(value)
    return tensor.dtype if tensor is not None else value.dtype


def check_single(node: Node, scale: Array) -> None:
    """Refuse scales that are not float32 (HQC102), or not positive and finite (HQC106)."""
    if scale.dtype != np.float32:
        raise reject(
            "HQC102",
            f"{node.op_type} with a scale of type {scale.dtype}",
            where=location_of(node),
            helps=("convert the model to float32 first",),
        )
    check_scale(node, scale)
